"""What a broker says when it refuses, and why a connection failed, for people."""

import asyncio

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from oneweb_bridge import tls
from oneweb_bridge.files import plain_text, refusal_of
from oneweb_bridge.mqtt import packets

FIRST_REFUSAL_CODE = 0x80
"""Reason codes from here on mean that the broker did not take the message. Source: MQTT 5, 2.4."""


class TakenOver(aiomqtt.MqttError):
    """The broker ended the connection because another client connected with the same client id."""


class Rejected(aiomqtt.MqttError):
    """The broker refused the connection, or closed it instead of an answer."""


NO_RETAIN = (
    "the broker does not keep retained messages, which most topics of the bridge are: allow them in its "
    "configuration (mosquitto: retain_available true)"
)
NO_QOS = (
    "the broker grants QoS 0 only, and the bridge needs QoS 1, so that nothing is lost: allow it in its "
    "configuration (mosquitto: max_qos 1)"
)


def why_unusable(reason_code: ReasonCode, properties: Properties) -> str | None:
    """Why a broker that answered CONNECT cannot be used, where aiomqtt would not say it. Source: MQTT 5, 3.2.2.3."""
    if reason_code.value >= FIRST_REFUSAL_CODE:
        words = with_broker_words(str(reason_code), properties)
        return f"[code:{reason_code.value}] {words}" if hasattr(properties, "ReasonString") else None
    if getattr(properties, "RetainAvailable", 1) == 0:
        return NO_RETAIN
    return NO_QOS if getattr(properties, "MaximumQoS", 2) == 0 else None


def with_broker_words(name: str, properties: Properties | None) -> str:
    """The name of a reason code, and what the broker said besides."""
    words = packets.shown(getattr(properties, "ReasonString", ""))
    return f"{name}: {words}" if words else name


def reason_name(answer: packets.Puback) -> str:
    """The name of a PUBACK's reason code, and what the broker said besides."""
    try:
        name = str(ReasonCode(PacketTypes.PUBACK, identifier=answer.code))
    except KeyError:
        name = f"reason code {answer.code}"
    return f"{name}: {answer.reason}" if answer.reason else name


def describe_connection_error(error: BaseException) -> str:
    """Why a connection failed, for people."""
    if (refusal := tls.describe_tls_error(error)) is not None:
        return refusal
    if isinstance(error, aiomqtt.MqttCodeError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    if isinstance(error.__context__, ConnectionResetError):
        return "it reset the connection; check whether TLS is spoken on this port (mqtt.tls.enabled)"
    if isinstance(error, OSError):
        return refusal_of(error)
    # aiomqtt makes its own error of the text of the system's.
    return " ".join(plain_text(str(error)).split()) or type(error).__name__
