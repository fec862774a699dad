"""Who decides on another machine: openpi's websocket protocol, spoken and answered."""
