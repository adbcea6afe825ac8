"""The web application: endpoints, WebSocket, security headers, serving.

From the outside in:

    serve        listens, runs uvicorn, and ends in order
    connections  limits below the application; `websocket_protocol` is uvicorn's, with an end to every connection
    app          the routes, and how errors are answered; `security` checks every request before
    endpoints    HTTP; `websocket` a connection to a room
    context      what every endpoint has at hand; `body` and `decoders` take uploads
"""
