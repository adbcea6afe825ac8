"""The web application: endpoints, WebSocket, security headers, serving."""
