//! The HTTP API: verbs, watch, patch, discovery, OpenAPI, authentication, authorisation, admission, audit.
