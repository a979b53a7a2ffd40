"""
A table of names of arguments in other libraries, and of arguments of DQNExt that users may write in the wrong place.

The names are those of RLlib, Tianshou, CleanRL, Coach, Stable-Baselines 2, Dopamine, Acme, PFRL and Keras-RL.
:func:`~sb3_dqn_ext._validation.equivalent_code` treats several spellings as the same: ``use_double`` and ``double``, ``num_``
and ``n_``, ``epsilon`` and ``eps``.
"""

__all__ = ["EQUIVALENT_CODE"]

EQUIVALENT_CODE: tuple[tuple[str, str], ...] = (
    # which target, which loss
    ("target_policy='double'", "target_policy double double_q double_dqn ddqn d_dqn test_double_q double_q_learning"),
    ("n_steps=3", "n_step n_steps n_step_return multi_step multistep update_horizon estimation_step n_step_horizon horizon"),
    ("gamma=0.99", "gamma discount discount_factor discount_rate"),
    ("target_network=False", "target_network no_target_network"),
    (
        "target_update_interval=500",
        "target_update_interval target_update target_network_update_freq target_update_freq target_network_frequency "
        "target_network_update_interval target_network_update_period target_model_update update_target_every "
        "update_target_freq target_sync_freq sync_freq copy_freq n_steps_between_copying_online_weights_to_target",
    ),
    ("target_update_interval=500, target_update_unit='gradient_steps'", "target_update_unit"),
    (
        "tau=0.005, target_update_interval=1",
        "tau soft_update soft_target_update soft_update_tau polyak polyak_tau polyak_coef target_update_method "
        "rate_for_copying_weights_to_target target_tau",
    ),
    # the network
    (
        "policy_kwargs={'head': 'dueling', 'head_arch': [64]}",
        "head head_arch dueling dueling_type dueling_param dueling_head dueling_q_head dueling_architecture advantage_hiddens",
    ),
    (
        "policy_kwargs={'noisy': True, 'noisy_kwargs': {'sigma0': 0.5}}",
        "noisy noisy_kwargs noisy_net noisy_layers noisy_linear noisy_std noisy_net_sigma sigma sigma0 param_noise "
        "noisy_exploration parameter_noise",
    ),
    (
        "policy_kwargs={'returns': 'categorical', 'returns_kwargs': {'n_atoms': 51, 'v_min': -10, 'v_max': 10}}",
        "returns returns_kwargs c51 distributional distributional_rl categorical categorical_dqn n_atoms atoms v_min v_max "
        "vmin vmax distributional_dqn",
    ),
    (
        "policy_kwargs={'returns': 'quantile', 'returns_kwargs': {'n_quantiles': 50}}",
        "n_quantiles quantiles quantile qrdqn qr_dqn quantile_regression",
    ),
    ("policy_kwargs={'returns': 'quantile', 'returns_kwargs': {'kappa': 1.0}}", "kappa quantile_kappa"),
    (
        "policy_kwargs={'returns': 'implicit_quantile', 'returns_kwargs': {'n_quantiles': 8}}",
        "iqn implicit_quantile online_sample_size n_tau_samples n_quantile_samples",
    ),
    (
        "policy_kwargs={'returns': 'implicit_quantile', 'returns_kwargs': {'n_target_quantiles': 8}}",
        "n_target_quantiles target_sample_size n_tau_prime_samples",
    ),
    (
        "policy_kwargs={'returns': 'implicit_quantile', 'returns_kwargs': {'n_policy_quantiles': 32}}",
        "n_policy_quantiles sample_size",
    ),
    (
        "policy_kwargs={'returns': 'implicit_quantile', 'returns_kwargs': {'embedding_dim': 64}}",
        "embedding_dim n_cosines quantile_embedding_dim",
    ),
    (
        "policy_kwargs={'returns': 'hl_gauss', 'returns_kwargs': {'n_bins': 101, 'v_min': -10, 'v_max': 10}}",
        "hl_gauss hlgauss n_bins num_bins bins histogram_loss two_hot",
    ),
    (
        "policy_kwargs={'returns': 'hl_gauss', 'returns_kwargs': {'sigma_ratio': 0.75, 'v_min': -10, 'v_max': 10}}",
        "sigma_ratio smoothing_ratio",
    ),
    (
        "policy_kwargs={'returns': 'hl_gauss', 'returns_kwargs': {'reward_range': [-1, 1], 'gamma': 0.99, "
        "'max_episode_length': 500}}",
        "reward_range max_episode_length",
    ),
    (
        "policy_kwargs={'loss': 'mse'}",
        "loss loss_fn loss_function td_error_loss_fn criterion huber huber_loss huber_loss_delta",
    ),
    ("policy_kwargs={'fitted_actions': 'all'}", "fitted_actions"),
    (
        "policy_kwargs={'net_arch': [64, 64]}",
        "net_arch hidden_sizes hidden_size hidden_layers hidden_layer_sizes hidden_dims hidden_dim hidden_units hiddens "
        "layers layer_sizes fcnet_hiddens fc_layers network_arch net_architecture network_kwargs n_hidden n_units mlp_units",
    ),
    (
        "policy_kwargs={'activation_fn': 'tanh'}",
        "activation_fn activation activation_function fcnet_activation act_fun nonlinearity act",
    ),
    (
        "policy_kwargs={'features_extractor_class': 'nature_cnn'}",
        "features_extractor_class features_extractor feature_extractor feature_extraction cnn_extractor",
    ),
    (
        "policy_kwargs={'encoder': 'impala'}",
        "encoder encoder_class encoder_type cnn cnn_type conv_filters conv_net impala impala_cnn resnet vision_network",
    ),
    ("policy_kwargs={'encoder': 'impala', 'encoder_kwargs': {'width': 2}}", "encoder_kwargs width impala_width width_scale"),
    (
        "policy_kwargs={'encoder': 'impala', 'encoder_kwargs': {'pool': 6, 'residual_norm': 'spectral'}}",
        "pool residual_norm maxpool adaptive_max_pool",
    ),
    ("policy_kwargs={'norm': 'spectral'}", "spectral spectral_norm spectral_normalization"),
    ("policy_kwargs={'norm': 'layer'}", "norm layer_norm layernorm layer_normalization norm_type normalization norm_layer"),
    ("policy_kwargs={'features_extractor_kwargs': {}}", "features_extractor_kwargs"),
    ("policy_kwargs={'normalize_images': False}", "normalize_images scale_images"),
    ("policy_kwargs={'dtype': 'float64'}", "dtype precision double_precision"),
    ("policy_kwargs={'init': 'keras'}", "init initializer weight_init kernel_initializer ortho_init"),
    (
        "policy_kwargs={'action_masks': True}",
        "action_masks action_mask mask masks masking maskable use_masking mask_actions invalid_actions invalid_action_mask "
        "invalid_action_masking legal_actions legal_moves available_actions avail_actions valid_actions",
    ),
    ("policy_kwargs={'batch_norm': True}", "batch_norm batchnorm batch_normalization"),
    ("policy_kwargs={'head': 'multi_head', 'head_arch': [64], 'optimizer_per_head': True}", "optimizer_per_head"),
    # the optimizer
    ("learning_rate=0.001", "learning_rate lr lr_rate step_size alpha_lr adam_lr optimizer_lr lr_schedule lr_scheduler"),
    ("policy_kwargs={'optimizer_class': 'rmsprop'}", "optimizer_class optimizer optim optimiser"),
    (
        "policy_kwargs={'optimizer_kwargs': {'eps': 1.5e-4}}",
        "optimizer_kwargs adam_eps adam_epsilon optimizer_eps optimizer_params optim_args",
    ),
    ("policy_kwargs={'optimizer_kwargs': {'weight_decay': 1e-4}}", "weight_decay l2 l2_reg"),
    (
        "max_grad_norm=10",
        "max_grad_norm grad_clip clip_grad clip_grad_norm clip_gradients gradient_clipping gradient_clip max_gradient_norm "
        "grad_norm_clipping clip_norm norm_clip gradient_clip_norm",
    ),
    # replay
    (
        "replay_buffer_kwargs={'sampler': 'prioritized'}",
        "sampler prioritized prioritized_replay prioritized_replay_buffer prioritized_experience_replay per "
        "prioritized_er replay_scheme",
    ),
    (
        "replay_buffer_kwargs={'sampler': 'prioritized', 'sampler_kwargs': {'alpha': 0.6}}",
        "sampler_kwargs alpha prioritized_replay_alpha per_alpha priority_exponent priority_alpha",
    ),
    (
        "replay_buffer_kwargs={'sampler': 'prioritized', 'sampler_kwargs': {'beta': 0.4}}",
        "beta beta0 beta_start prioritized_replay_beta prioritized_replay_beta0 per_beta priority_weight "
        "importance_sampling_exponent",
    ),
    (
        "replay_buffer_kwargs={'sampler': 'prioritized', 'sampler_kwargs': {'beta_end': 1.0}}",
        "beta_end beta_final betasteps beta_anneal_step beta_frames prioritized_replay_beta_iters "
        "final_prioritized_replay_beta prioritized_replay_beta_annealing_timesteps beta_annealing",
    ),
    (
        "replay_buffer_kwargs={'sampler': 'prioritized', 'sampler_kwargs': {'eps': 0.01}}",
        "prioritized_replay_eps per_eps priority_eps",
    ),
    ("replay_buffer_kwargs={'sampler': 'uniform', 'sampler_kwargs': {'replace': False}}", "replace"),
    ("replay_buffer_kwargs={'terminal_copies': 4}", "terminal_copies"),
    ("replay_buffer_kwargs={'terminal_copies': 4, 'terminal_on': 'done'}", "terminal_on"),
    ("replay_buffer_kwargs={'monte_carlo': 0.1}", "monte_carlo monte_carlo_mixing_rate mixed_monte_carlo mmc"),
    (
        "replay_buffer_kwargs={'td_lambda': 0.65}",
        "td_lambda lambda lambda_ lam q_lambda lambda_return lambda_returns gae_lambda trace_decay eligibility_traces retrace",
    ),
    ("replay_buffer_kwargs={'keep_episodes': 10}", "keep_episodes"),
    (
        "replay_buffer_kwargs={'handle_timeout_termination': False}",
        "handle_timeout_termination handle_timeouts bootstrap_truncated timeout_termination",
    ),
    (
        "buffer_size=100_000",
        "buffer_size memory_size memory_capacity replay_size replay_capacity replay_memory_size replay_buffer_size "
        "replay_buffer_capacity buffer_capacity capacity buffer_length max_replay_size memory_limit max_size buffer_limit",
    ),
    (
        "learning_starts=1_000",
        "learning_starts learning_start learn_start learn_starts training_starts train_start start_training_after "
        "min_replay_history min_replay_size min_buffer_size replay_start_size n_steps_warmup warmup_steps warmup "
        "start_timesteps heatup_steps n_steps_sampled_before_learning_starts initial_random_steps start_steps",
    ),
    ("optimize_memory_usage=True", "optimize_memory_usage memory_efficient save_only_last_obs"),
    ("replay_buffer_kwargs={'storage': 'frames'}", "storage lazy_frames frame_storage store_frames dedup_frames"),
    ("replay_buffer_class=HerReplayBuffer", "replay_buffer_class her hindsight replay_buffer goal_selection_strategy"),
    ("replay_buffer_kwargs={}", "replay_buffer_kwargs buffer_kwargs replay_kwargs replay_buffer_config"),
    # how much is learned, and when
    ("batch_size=64", "batch_size train_batch_size mini_batch_size minibatch sgd_minibatch_size n_batch replay_batch_size bs"),
    ("minibatch_size=8", "minibatch_size"),
    (
        "train_freq=4",
        "train_freq train_frequency train_interval train_every training_freq training_interval update_freq update_every "
        "update_interval update_period replay_frequency learn_every steps_per_update rollout_fragment_length",
    ),
    (
        "gradient_steps=1",
        "gradient_steps n_updates updates_per_step update_per_step n_times_update n_gradient_steps updates_per_iteration "
        "n_train_repeat utd utd_ratio replay_ratio training_intensity samples_per_insert",
    ),
    ("n_epochs=1", "n_epochs epochs"),
    # exploration
    ("exploration='epsilon_greedy', exploration_kwargs={'epsilon_draw': 'shared'}", "epsilon_draw coin coins"),
    (
        "exploration_initial_eps=1.0, exploration_final_eps=0.05, exploration_fraction=0.1",
        "exploration_initial_eps exploration_final_eps exploration_fraction eps epsilon epsilon_train eps_train eps_training "
        "eps_train_final epsilon_start eps_start start_eps start_epsilon start_e initial_epsilon epsilon_initial epsilon_init "
        "max_epsilon epsilon_max epsilon_end eps_end end_eps end_epsilon end_e final_epsilon epsilon_final min_epsilon "
        "epsilon_min exploration_initial exploration_final final_exploration initial_exploration exploration_rate "
        "exploration_eps epsilon_greedy final_exploration_step final_exploration_frame",
    ),
    (
        "exploration_kwargs={'schedule': {'name': 'linear', 'start': 1.0, 'end': 0.05, 'end_fraction': 0.1}}",
        "schedule epsilon_fn exploration_schedule epsilon_schedule",
    ),
    (
        "exploration_kwargs={'schedule': {'name': 'exponential', 'start': 1.0, 'end': 0.05, 'rate': 1e-4}}",
        "epsilon_decay eps_decay decay_rate epsilon_decay_rate exploration_decay decay",
    ),
    (
        "exploration_kwargs={'schedule': {'name': 'piecewise', 'points': [[0, 1.0], [10_000, 0.05]]}}",
        "epsilon_decay_period epsilon_decay_steps epsilon_timesteps decay_steps eps_decay_steps exploration_steps "
        "anneal_steps exploration_timesteps",
    ),
    ("exploration_kwargs={'schedule': 0.1, 'unit': 'actions'}", "unit"),
    ("exploration_kwargs={'warm_up': False}", "warm_up"),
    ("exploration='ez_greedy', exploration_kwargs={'mu': 2.0}", "exploration ez_greedy mu"),
    ("exploration='ez_greedy', exploration_kwargs={'max_duration': 100}", "max_duration"),
    ("exploration='epsilon_ladder', exploration_kwargs={'alpha': 7.0}", "alpha epsilon_ladder ape_x"),
    ("exploration='boltzmann', exploration_kwargs={'temperature': 0.1}", "temperature boltzmann softmax soft_q"),
    (
        "target_policy='munchausen', target_policy_kwargs={'alpha': 0.9}",
        "target_policy_kwargs alpha munchausen munchausen_alpha m_dqn",
    ),
    (
        "target_policy='munchausen', target_policy_kwargs={'temperature': 0.03}",
        "temperature munchausen_tau entropy_temperature tau",
    ),
    ("target_policy='munchausen', target_policy_kwargs={'log_policy_net': 'online'}", "log_policy_net"),
    ("target_policy='munchausen', target_policy_kwargs={'clip': -1}", "clip clip_value_min munchausen_clip lo"),
    ("exploration_kwargs={'schedule': 0.1}", "exploration_kwargs exploration_config explorer"),
    # recorded transitions
    (
        "replay_buffer_kwargs={'demonstrations': 'demonstrations.npz'}",
        "demonstrations demos demo_path expert_data expert_dataset expert_path offline_data dataset load_demo",
    ),
    (
        "replay_buffer_kwargs={'sampler': 'prioritized', 'sampler_kwargs': {'eps_demonstrations': 1.0}}",
        "eps_demonstrations eps_demo demo_priority_bonus priority_bonus expert_priority_bonus",
    ),
    (
        "policy_kwargs={'auxiliary_loss': 'large_margin', 'auxiliary_loss_kwargs': {'margin': 0.8}}",
        "auxiliary_loss auxiliary_loss_kwargs large_margin margin_loss supervised_loss expert_margin margin_function margin",
    ),
    (
        "policy_kwargs={'auxiliary_loss': 'cql', 'auxiliary_loss_kwargs': {'alpha': 1.0}}",
        "cql cql_alpha conservative_weight min_q_weight cql_loss",
    ),
    ("pretraining_updates=1000", "pretraining_updates pretraining_steps pretrain_steps n_pretrain pretrain_iterations"),
    # the run
    ("seed=0", "seed random_state random_seed rng rng_seed"),
    ("device='cuda'", "device cuda gpu n_gpus gpu_id use_cuda"),
    ("compile=True", "compile jit torch_compile"),
    ("compile={'cuda_graphs': True}", "cudagraphs cuda_graphs"),
    ("actors={'n_actors': 4}", "actors n_actors n_env_runners n_rollout_workers ape_x apex distributed n_learners"),
    ("step_while_learning=True", "step_while_learning async_envs async_learning overlap asynchronous"),
    ("check_finite=True", "check_finite detect_anomaly check_nan vec_check_nan"),
    ("tensorboard_log='runs'", "tensorboard_log tensorboard tb_log log_dir logdir log_path"),
    ("verbose=1", "verbose verbosity log_level"),
    ("stats_window_size=100", "stats_window_size"),
    ("policy_kwargs={}", "policy_kwargs model_kwargs q_network_kwargs"),
    ("model.learn(total_timesteps=100_000)", "total_timesteps n_timesteps n_env_steps max_steps training_steps max_epoch"),
    ("model.learn(100_000, callback=...)", "callback callbacks"),
    ("model.learn(100_000, log_interval=...)", "log_interval"),
    ("model.learn(100_000, progress_bar=True)", "progress_bar"),
    ("model.learn(100_000, tb_log_name=...)", "tb_log_name run_name experiment_name"),
    ("model.learn(100_000, callback=EvalCallback(env))", "eval_env create_eval_env eval_freq n_eval_episodes"),
    (
        "DQNExt(policy, make_fast_vec_env(id, n_envs))",
        "n_envs env_kwargs wrapper_class vec_env_cls vec_env_kwargs monitor_dir",
    ),
    ("DQNExt(policy, VecFrameStack(env, 4))", "frame_stack stack_frames history_length framestack n_stack"),
    ("DQNExt(policy, AtariWrapper(env))", "clip_rewards clip_reward reward_clip reward_clipping reward_bound"),
    (
        'DQNExt(policy, make_fast_vec_env("ALE/Pong-v5", 8, env_kwargs={"episodic_life": True}))',
        "episodic_life terminal_on_life_loss life_loss_info repeat_action_probability noop_max",
    ),
    ("DQNExt(policy, VecNormalize(env))", "normalize norm_obs norm_reward normalize_observations normalize_reward obs_norm"),
)
"""(code for DQNExt, names with that meaning, separated by spaces); a name can be in several rows"""
