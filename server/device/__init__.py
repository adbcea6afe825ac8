"""The process that owns a device, its sessions, and the engine that the service talks to."""
