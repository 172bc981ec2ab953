//! The explicit proxy: whose request it is, whether it may go, and the bytes.
//!
//! Pure readers of the wire are in [`wire`]; what is judged, and by whom, is behind [`judge`]; everything else moves bytes.
//! Nothing leaves before it was judged and the decision was written down.

pub mod clock;
pub mod config;
pub mod daemon;
pub mod denial;
pub mod dial;
pub mod flows;
pub mod gateway;
pub mod http2_stream;
pub mod judge;
pub mod listen;
pub mod metrics;
pub mod pool;
pub mod relay;
pub mod request_id;
pub mod resolver;
pub mod session;
pub mod source;
pub mod stream;
pub mod tls;
pub mod wire;
pub mod worker;
