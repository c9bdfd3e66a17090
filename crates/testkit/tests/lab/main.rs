//! The emulated network itself: what is set is what sockets see, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(target_os = "linux")]
mod cleanup;
#[cfg(target_os = "linux")]
mod hosts;
#[cfg(target_os = "linux")]
mod links;
#[cfg(target_os = "linux")]
mod wire;

use std::process::ExitCode;

use testkit::trial::Suite;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use testkit::net;
    use testkit::trial::trials;

    net::gain_rights();
    if std::env::args().nth(1).as_deref() == Some(cleanup::VICTIM_ARGUMENT) {
        cleanup::victim();
    }
    let mut suite = Suite::from_args();
    suite.add(
        net::supported,
        trials![
            links::round_trips_take_at_least_as_long_as_is_set,
            links::each_direction_is_set_on_its_own,
            links::one_packet_in_a_hundred_is_lost_and_always_the_same,
            links::a_cut_link_passes_nothing_until_it_is_restored,
            links::streams_arrive_whole_whatever_the_link_does,
            links::a_rate_bounds_a_stream,
            links::multicast_reaches_all_that_are_not_cut_off,
            hosts::a_host_has_its_own_loopback_and_no_way_out,
            hosts::labs_side_by_side_do_not_see_each_other,
            hosts::tasks_run_inside,
            hosts::panics_inside_come_out,
            hosts::a_paused_process_stays_and_a_dropped_one_ends,
            hosts::programs_that_do_not_exist_are_an_error,
            cleanup::a_lab_takes_everything_with_it,
            cleanup::a_panic_leaves_nothing,
            cleanup::a_killed_test_leaves_nothing,
        ],
    );
    suite.run()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    fn lab() {}
    let mut suite = Suite::from_args();
    let possible = || Err("network namespaces are a thing of Linux".to_owned());
    suite.add(possible, testkit::trial::trials![lab]);
    suite.run()
}
