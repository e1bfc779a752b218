"""The names of metrics as docs/sparkplug.md has them, by field of the JSON records: written down here a second time."""

TERMINAL = {
    "imei": "Status/IMEI",
    "imsi": "Status/IMSI",
    "name": "Status/Name",
    "serial_number": "Status/Serial Number",
    "state": "Status/State",
    "hardware_version": "Status/Hardware Version",
    "manufacturer": "Status/Manufacturer",
    "party_id": "Owner/Party Id",
    "party_name": "Owner/Party Name",
    "end_customer_id": "Owner/End Customer Id",
    "end_customer_name": "Owner/End Customer Name",
    "site_id": "Site/Id",
    "site_external_id": "Site/External Id",
}
PRODUCT = {
    "product_id": "Plan/Id",
    "name": "Plan/Name",
    "description": "Plan/Description",
    "status": "Plan/Status",
    "site_id": "Plan/Site Id",
    "imei": "Plan/IMEI",
    "is_bundle": "Plan/Bundle",
    "allowance_unlimited": "Plan/Allowance Unlimited",
    "distribution_partner_id": "Plan/Distribution Partner Id",
    "distribution_partner_name": "Plan/Distribution Partner Name",
    "end_customer_id": "Plan/End Customer Id",
    "end_customer_name": "Plan/End Customer Name",
    "allowance_gb": "Plan/Allowance",
    "overage_increment_gb": "Plan/Overage Increment",
    "max_bandwidth_downlink_mbps": "Plan/Max Bandwidth Downlink",
    "max_bandwidth_uplink_mbps": "Plan/Max Bandwidth Uplink",
    "budgeted_amount_mbps": "Plan/Budgeted Amount",
    "min_antenna_gain_dbk": "Plan/Min Antenna Gain",
    "ip_static_address": "Plan/IP Static Address",
    "ip_addressing_type": "Plan/IP Addressing Type",
    "service_grade": "Plan/Service Grade",
}
USAGE = {"used_gb": "Used", "entitlement_gb": "Entitlement", "remaining_gb": "Remaining", "overage_blocks": "Overage"}
SAMPLE = {
    "link_availability_pct": "Link/Availability",
    "resource_state": "Link/Resource State",
    "latency_ms": "Link/Latency",
    "jitter_ms": "Link/Jitter",
    "packet_loss_pct": "Link/Packet Loss",
    "rsrp_dbm": "Signal/RSRP",
    "rssi_dbm": "Signal/RSSI",
    "sinr_db": "Signal/SINR",
    **{
        f"{net.lower()}_{way.lower()}_bytes": f"Traffic/{net} {way}"
        for net in ("CNX", "MGMT", "WAN")
        for way in ("Tx", "Rx")
    },
    **{
        f"{cls.lower()}_{way.lower()}_bps": f"Throughput/{cls} {way}"
        for cls in ("EF", "AF", "BE")
        for way in ("Uplink", "Downlink")
    },
}
