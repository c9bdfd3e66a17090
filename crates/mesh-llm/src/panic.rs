//! What the user sees of a fault in the program itself: one line and a hint, no backtrace. The
//! backtrace goes to the log.

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;

use crate::console::Console;

/// Characters of a fault's own message that are shown; some quote what they choked on.
const MESSAGE_CHARS_MAX: usize = 200;
/// Folders of a source file's path that are shown: enough to find it, nothing of the machine on
/// which the program was built.
const PATH_PARTS: usize = 4;

/// Tells of faults in this way from now on. What the fault ends, a request or the program, is
/// decided where it happens.
pub(crate) fn report_to(console: Console) {
    std::panic::set_hook(Box::new(move |fault| {
        console.error("internal", &describe(fault));
        if tracing::enabled!(tracing::Level::DEBUG) {
            let backtrace = Backtrace::force_capture();
            tracing::debug!(%backtrace, "where mesh-llm failed");
        }
    }));
}

fn describe(fault: &PanicHookInfo<'_>) -> String {
    let text = fault.payload_as_str().unwrap_or("no reason given");
    let text = text.lines().next().unwrap_or_default();
    let text: String = text.chars().take(MESSAGE_CHARS_MAX).collect();
    let place = fault.location().map_or_else(String::new, |location| {
        let parts: Vec<&str> = location.file().split(['/', '\\']).collect();
        let file = parts[parts.len().saturating_sub(PATH_PARTS)..].join("/");
        format!(" at {file}:{}", location.line())
    });
    format!(
        "mesh-llm itself failed{place}: {text}; hint: this is a bug, please report it with this \
         line; if mesh-llm does not answer any more, start it again (--log-level debug shows more)"
    )
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, set_hook, take_hook};
    use std::sync::{Arc, Mutex};

    use super::describe;

    fn description(fault: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let told = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&told);
        let before = take_hook();
        set_hook(Box::new(move |fault| {
            *kept.lock().unwrap() = describe(fault);
        }));
        catch_unwind(fault).unwrap_err();
        set_hook(before);
        told.lock().unwrap().clone()
    }

    #[test]
    fn a_fault_is_one_line_with_what_to_do() {
        let place = "mesh-llm itself failed at crates/mesh-llm/src/panic.rs:";
        let long = "x".repeat(5000);
        let check = |fault: Box<dyn FnOnce() + std::panic::UnwindSafe>, reason: &str| {
            let text = description(fault);
            assert!(text.starts_with(place), "{text}");
            assert!(text.contains(reason), "{text}");
            assert!(text.contains("; hint: "), "{text}");
            assert!(!text.contains('\n') && text.len() < 600, "{text}");
        };
        check(Box::new(|| panic!("first\nsecond")), ": first; hint");
        check(Box::new(move || panic!("{long}")), ": xxx");
        check(Box::new(|| std::panic::panic_any(7)), "no reason given");
    }
}
