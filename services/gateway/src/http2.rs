//! HTTP/2 on the TLS listener: each CONNECT stream is a tunnel of its own.
use std::sync::Arc;
use crate::session::Connection;
use crate::worker::Worker;
pub async fn serve(_worker: Arc<Worker>, _connection: Connection) {}
