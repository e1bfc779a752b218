"""The polling manager: when a call is polled, what a poll changes, which events come of it, what is removed.

It commits records and journal rows in one transaction, and knows nothing of MQTT.
"""
