//! Streaming protocols of exec, attach and port-forward: WebSocket channels and SPDY/3.1.
//!
//! The node's end of `kubectl exec`: a request is upgraded to whatever the client speaks, and the caller
//! gets plain byte streams.
