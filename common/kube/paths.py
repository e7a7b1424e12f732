"""Where the API server has what belongs to a release."""

from common.settings import Settings


class Paths:
    """The collections of one release, and its Lease."""

    def __init__(self, settings: Settings) -> None:
        namespace = settings.run_namespace
        self.leases = f"/apis/coordination.k8s.io/v1/namespaces/{settings.release_namespace}/leases"
        self.lease = f"{self.leases}/{settings.release}"
        self.jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.pods = f"/api/v1/namespaces/{namespace}/pods"
        self.events = f"/api/v1/namespaces/{namespace}/events"

    def job(self, run_id: str) -> str:
        """A run's Job."""
        return f"{self.jobs}/{run_id}"
