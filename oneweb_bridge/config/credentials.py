"""Whether there are credentials of the API. Pure."""

from oneweb_bridge.config.schema import Api as ApiSettings


def missing_credential(settings: ApiSettings) -> str | None:
    """Which credential is missing, and how to give it; None where both are there."""
    for key, variable in (("client_id", "ONEWEB_CLIENT_ID"), ("client_secret", "ONEWEB_CLIENT_SECRET")):
        if not getattr(settings, key):
            return (
                f"api.{key} is empty: set {variable} in the environment, or api.{key} or api.{key}_file in "
                "the configuration, to what the application in the OneWeb developer portal shows"
            )
    return None
