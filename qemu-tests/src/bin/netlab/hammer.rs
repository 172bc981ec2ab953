//! Sends all that must not pass, over and over, whether or not the box answers, listens or is even switched on.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qemu_tests::packet_socket::PacketSocket;

mod volley;

pub(crate) use volley::Settings;

pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let wire = PacketSocket::open(&settings.interface)?;
    let end = crate::end_flag();
    crate::ready();
    let pause = Duration::from_secs(1) / settings.rate.max(1);
    let (mut sent, mut refused, mut round) = (0_u64, 0_u64, 0_u16);
    let mut next = Instant::now();
    while !end.load(Ordering::Relaxed) {
        for frame in settings.volley(round) {
            if wire.send(&frame)? {
                sent += 1;
            } else {
                // The wire is down while the box is off. That is no reason to stop.
                refused += 1;
            }
            next += pause;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if end.load(Ordering::Relaxed) {
                break;
            }
        }
        // After a stall (the machine was busy) go on at the same pace instead of catching up in one burst.
        next = next.max(Instant::now());
        round = round.wrapping_add(1);
    }
    crate::finish(&format!(
        r#"{{"sent":{sent},"refused":{refused},"rounds":{round}}}"#
    ));
    Ok(())
}
