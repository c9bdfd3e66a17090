//! Tickets as QR codes in the terminal, for the camera of another machine.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use terminal_size::{Height, Width};

/// White on black, whatever the terminal's own colours are: cameras want dark on light.
const COLOURS: &str = "\x1b[97;40m";
const COLOURS_END: &str = "\x1b[0m";

/// The code of `ticket`, if it fits into a terminal of this size.
pub(crate) fn of_ticket(ticket: &str, size: Option<(Width, Height)>) -> Option<String> {
    let (Width(columns), Height(rows)) = size?;
    // Capitals and digits take five and a half bits each, other letters eight.
    let capitals = ticket.to_uppercase();
    let code = QrCode::with_error_correction_level(capitals, EcLevel::L).ok()?;
    let picture = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    let lines: Vec<&str> = picture.lines().collect();
    let width = lines.iter().map(|line| line.chars().count()).max()?;
    if width > usize::from(columns) || lines.len() > usize::from(rows) {
        return None;
    }
    let lines = lines
        .iter()
        .map(|line| format!("{COLOURS}{line}{COLOURS_END}\n"));
    Some(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_where_it_fits() {
        let ticket = format!("mesh1{}", "abcdefgh234567".repeat(40));
        let draw = |columns, rows| of_ticket(&ticket, Some((Width(columns), Height(rows))));
        let code = draw(200, 100).unwrap();
        let lines: Vec<&str> = code.lines().collect();
        let width = lines[0].chars().count() - COLOURS.len() - COLOURS_END.len();
        assert!(lines.iter().all(|line| line.starts_with(COLOURS)));
        // A square, two modules a line.
        assert_eq!(width.div_ceil(2), lines.len());
        let (columns, rows) = (
            u16::try_from(width).unwrap(),
            u16::try_from(lines.len()).unwrap(),
        );
        assert!(draw(columns, rows).is_some());
        assert!(draw(columns - 1, rows).is_none());
        assert!(draw(columns, rows - 1).is_none());
        assert!(of_ticket(&ticket, None).is_none());
    }
}
