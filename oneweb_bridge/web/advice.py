"""What to do about each kind of alert, as docs/operating.md says it. Pure."""

ADVICE = {
    "unauthorized": (
        "check client id and secret; ask OneWeb whether the application has a contract for this API; then poll"
    ),
    "bad_answer": "run oneweb-bridge explore; check path, records, page and key of the call",
    "set_aside": (
        "run oneweb-bridge explore; no record of this call is removed meanwhile. With log.level: debug the "
        "log has each with its traceback"
    ),
    "value_unreadable": "oneweb-bridge explore; check map.<field> of the call, above all its type and unit.",
    "answer_unexpected": "do what the message says; oneweb-bridge explore shows the answer beside the mapping",
    "shape_changed": "ask OneWeb what changed; adapt map of the call if a field was read from there",
    "time_not_believed": (
        "ask OneWeb about it. When the clock of this machine or of the API is far behind, set it: the next "
        "polls then bring the data"
    ),
    "time_ambiguous": "ask OneWeb for times with an offset; look at mapping.timezone",
    "report_stopped": (
        "look at the terminals that it names, and ask OneWeb; often the report has stopped on the API's side"
    ),
    "values_held": "check the API and the rights of the credentials; request/release, or wait",
    "removal_held": "check whether they are really gone; request/release, or wait",
    "allowance_exhausts": "look at its forecast; buy more, use less, or expect overage blocks",
    "intervals_stretched": "raise the budget, set longer intervals, or disable calls",
    "row_set_aside": "check the broker's access rules and size limits, and mqtt.max_payload",
    "topics_refused": "let the bridge's user write there in the broker's access rules",
    "topic_owed": "raise the broker's max_packet_size or mqtt.max_payload",
    "message_too_large": "raise the broker's max_packet_size or mqtt.max_payload",
    "backlog_dropped": "repair the broker; then request/replay",
    "trends_behind": "look at the disk and at the rights of trends.path; nothing else is affected",
    "trends_lost": "if you did not remove it: look at the disk, stop the bridge and put a backup in its place",
    "commands_dropped": "find out who sends them",
    "sparkplug": "find out who writes, or give each bridge its own ids; see docs/sparkplug.md",
    "database_restored": (
        "if you restored one and the alert counts topics that are left: request/purge after the next polls, "
        "see Restoring a backup. Otherwise find out who put an older database in place"
    ),
    "client_id_taken": "stop the second bridge, or give it an instance of its own",
    "foreign_instance": (
        "give one of them another mqtt.base_topic, or clear oneweb/bridge/head if the other bridge no longer exists"
    ),
}
"""Kind -> what to do; kinds about which nothing is to be done are left out."""
