//! clawgress-gateway. Wires configuration, listeners and judge together.
fn main() {}
