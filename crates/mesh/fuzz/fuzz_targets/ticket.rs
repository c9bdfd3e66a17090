//! Fuzz target: any text and any bytes as a ticket.
#![no_main]

use mesh::ticket::Ticket;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(ticket) = Ticket::from_bytes(bytes) {
        let text = ticket.to_string();
        assert_eq!(text.parse().as_ref(), Ok(&ticket));
        let _ = ticket.check(1_800_000_000_000);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Ticket>();
    }
});
