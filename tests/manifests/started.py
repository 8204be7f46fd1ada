"""Which test starts which pod of manifests/, as it is written, and sees it do its work."""

STARTED = {
    "CronJob/holdfast-first": "test_pods_run.py::test_the_first_version_is_copied_and_becomes_the_champion",
    "CronJob/holdfast-rollout": "test_pods_run.py::test_without_an_approved_candidate_the_rollout_ends_well",
    "CronJob/holdfast-rollout-watchdog": "test_pods_run.py::test_the_watchdog_looks_with_its_own_account",
    "Deployment/any": "test_pods_run.py::test_the_init_container_lets_the_newest_release_pass_and_no_other",
    "Deployment/holdfast-mlflow": "test_mlflow_pod.py::"
    "test_it_comes_up_asks_for_a_login_and_answers_to_its_own_names_only[PostgreSQL]",
    "SeldonDeployment/model": "test_pods_run.py::test_a_predictor_answers_without_a_network_but_its_own[Core 1]",
    "Server/holdfast": "test_pods_run.py::test_a_server_of_core_2_loads_what_its_agent_brought",
    "ServingRuntime/holdfast": "test_pods_run.py::test_a_predictor_answers_without_a_network_but_its_own[KServe]",
}  # fmt: skip
"""Object -> test in this folder. Steps of pipelines are started by tests/images and tests/node."""
