"""The fleet as Sparkplug B 3.0: terminals as Devices of Edge Nodes, for Ignition and other SCADA hosts.

It promises that every journal row reaches the host, live or as history, and may know the journal's rows and records,
the catalogue's fields and the connection of `mqtt`; nothing knows it but the application.
"""
