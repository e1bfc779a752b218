"""Starts the bridge in the add-on: options and the broker add-on become environment variables, then the bridge runs."""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

OPTIONS = Path("/data/options.json")
OWN, SHIPPED = Path("/config/bridge.yaml"), Path(__file__).with_name("bridge.yaml")
SUPERVISOR = "http://supervisor"

VARIABLES = {
    "client_id": "ONEWEB_CLIENT_ID",
    "client_secret": "ONEWEB_CLIENT_SECRET",
    "profile": "ONEWEB_PROFILE",
    "base_url": "ONEWEB_BASE_URL",
    "instance": "BRIDGE_INSTANCE",
    "terminals_interval": "TERMINALS_INTERVAL",
    "log_level": "LOG_LEVEL",
    "mqtt_host": "MQTT_HOST",
    "mqtt_port": "MQTT_PORT",
    "mqtt_username": "MQTT_USERNAME",
    "mqtt_password": "MQTT_PASSWORD",
    "mqtt_tls": "MQTT_TLS",
}
"""Option of the add-on -> environment variable that bridge.yaml reads."""


def environment(options: dict[str, Any], service: dict[str, Any] | None) -> dict[str, str]:
    """The variables. `service` is the broker that the Supervisor knows; one named in the options goes before it."""
    variables = {VARIABLES[name]: text(value) for name, value in options.items() if name in VARIABLES}
    if variables.get("MQTT_HOST") or service is None:
        return variables
    broker = {"host": "MQTT_HOST", "port": "MQTT_PORT", "username": "MQTT_USERNAME", "password": "MQTT_PASSWORD"}
    variables |= {variable: text(service[name]) for name, variable in broker.items() if service.get(name) is not None}
    return variables | {"MQTT_TLS": text(bool(service.get("ssl"))), "MQTT_ALLOW_PLAIN_PASSWORD": "true"}


def text(value: Any) -> str:
    """A value as the bridge's configuration writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def mqtt_service(supervisor: str, token: str) -> dict[str, Any] | None:
    """Address and account of the broker add-on; None when there is none."""
    request = urllib.request.Request(f"{supervisor}/services/mqtt", headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - the Supervisor's own address
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
            reply: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return None
    except (urllib.error.URLError, TimeoutError, ValueError):
        return None
    service: dict[str, Any] | None = reply.get("data") if reply.get("result") == "ok" else None
    return service or None


def main() -> None:
    """Becomes the bridge. Ends with 2 when there is no broker to be had."""
    options = json.loads(OPTIONS.read_text(encoding="utf-8"))
    variables = environment(options, mqtt_service(SUPERVISOR, os.environ.get("SUPERVISOR_TOKEN", "")))
    if not variables.get("MQTT_HOST"):
        print(
            "No broker: install and start the Mosquitto add-on, or set mqtt_host in the configuration.", file=sys.stderr
        )
        sys.exit(2)
    config = OWN if OWN.exists() else SHIPPED
    os.execvpe("oneweb-bridge", ["oneweb-bridge", "run", "-c", str(config)], os.environ | variables)  # noqa: S606, S607 - no shell; from the image's own PATH


if __name__ == "__main__":
    main()
