//! `./dev setup` on simulated machines. All that is on PATH there is a folder of stubs and of the few real programs
//! that every system has, so nothing is installed. What the stubs do stands in `stub.sh`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod machine;

use machine::Machine;

/// What is there once Rust is installed.
const RUST: [&str; 2] = ["cargo", "rustc"];

/// What building needs besides Rust and libclang.
const TOOLS: [&str; 5] = ["c++", "make", "cmake", "pkg-config", "curl"];

// How the calls begin that install packages. libclang and its headers are named in them because they are no
// programs, so a stub cannot bring them.
const DNF: &str = "dnf install -q -y gcc-c++ make cmake clang-devel clang ";
const APT: &str =
    "apt-get install -q -y --no-install-recommends build-essential cmake libclang-dev ";
const APT_UPDATE: &str = "apt-get update";
const BREW: &str = "brew install --quiet cmake pkgconf";
const CURL: &str = "curl --proto =https ";
const RUSTUP: &str = "rustup-init.sh -y ";

const NO_PASSWORD: &str = "sudo asks for a password, and nobody is there to type it";
const READ_ABOVE: &str = "read its message above";

fn fedora() -> Machine {
    Machine::new("Linux", &["dnf", "curl"])
}

fn debian() -> Machine {
    Machine::new("Linux", &["apt-get"])
}

/// With what macOS has in place of Apple's command line tools until they are installed: programs that ask for them.
fn mac() -> Machine {
    Machine::new("Darwin", &["xcode-select", "c++", "make", "curl"])
}

#[test]
fn fedora_gets_what_it_lacks() {
    let outcome = fedora().with(&RUST).setup();
    outcome
        .misses("compiler make cmake pkg-config")
        .succeeds(&[DNF]);
}

#[test]
fn fedora_without_rust_gets_it_once() {
    let machine = fedora().without("curl");
    let outcome = machine.setup();
    outcome
        .misses("compiler make cmake pkg-config curl")
        .succeeds(&[DNF, CURL, RUSTUP]);
    machine.setup().succeeds(&[]);
    // Where rustup puts it if nothing says otherwise.
    let machine = fedora().unset("CARGO_HOME");
    machine.setup().succeeds(&[DNF, CURL, RUSTUP]);
    machine.setup().succeeds(&[]);
}

#[test]
fn a_system_may_lack_cmp() {
    let machine = fedora().with(&RUST).without("cmp");
    machine.setup().succeeds(&[DNF]);
}

#[test]
fn rust_that_cannot_be_installed_is_told() {
    let machine = fedora().with(&TOOLS[..4]);
    let outcome = machine.failing("curl *").setup();
    let hint = "is this machine online? else install Rust by hand: https://rustup.rs";
    outcome.stops("rustup cannot be downloaded", hint, &[CURL]);
    let machine = fedora().with(&TOOLS[..4]);
    let outcome = machine.failing("rustup-init.sh *").setup();
    outcome.stops("rustup's installer failed", READ_ABOVE, &[CURL, RUSTUP]);
}

#[test]
fn a_user_installs_with_sudo() {
    let machine = fedora().with(&RUST).with(&["sudo"]).unprivileged();
    machine.setup().succeeds(&["sudo -n dnf install ", DNF]);
}

#[test]
fn sudo_with_a_password_is_left_to_the_user() {
    let with_sudo = |machine: Machine| machine.with(&RUST).with(&["sudo"]).unprivileged();
    let outcome = with_sudo(fedora())
        .set("CI", "true")
        .failing("sudo *")
        .setup();
    outcome.stops(
        NO_PASSWORD,
        "run by hand: sudo dnf install -q -y gcc-c++ ",
        &["sudo -n dnf install ", "sudo -n true"],
    );
    let outcome = with_sudo(debian()).failing("sudo *").setup();
    outcome.stops(
        NO_PASSWORD,
        "run by hand: sudo sh -c 'apt-get update; apt-get install --no-install-recommends build-essential ",
        &["sudo -n apt-get update", "sudo -n true"],
    );
}

#[test]
fn without_sudo_the_user_is_told_what_to_run() {
    let error = "installing needs root, and there is no sudo";
    let outcome = fedora().with(&RUST).unprivileged().setup();
    outcome.stops(error, "as root, run: dnf install -q -y gcc-c++ ", &[]);
    let outcome = debian().with(&RUST).unprivileged().setup();
    let hint = "as root, run: sh -c 'apt-get update; apt-get install --no-install-recommends build-essential ";
    outcome.stops(error, hint, &[]);
}

#[test]
fn a_package_manager_that_fails_is_told() {
    let hint = "read its message above; is this machine online?";
    let dnf = "dnf could not install the packages";
    let machine = fedora().with(&RUST).failing("dnf *");
    machine.setup().stops(dnf, hint, &[DNF]);
    // Not taken for sudo's own failure.
    let machine = machine.with(&["sudo"]).unprivileged();
    let calls = ["sudo -n dnf install ", DNF, "sudo -n true"];
    machine.setup().stops(dnf, hint, &calls);
    let machine = debian().with(&RUST).failing("apt-get *");
    let apt = "apt-get could not install the packages";
    machine.setup().stops(apt, hint, &[APT_UPDATE, APT]);
    let machine = mac().with(&RUST).with(&["brew"]).failing("brew *");
    let brew = "Homebrew could not install cmake and pkgconf";
    let calls = ["xcode-select -p", BREW];
    machine.setup().stops(brew, READ_ABOVE, &calls);
}

#[test]
fn packages_that_bring_nothing_are_noticed() {
    let machine = fedora().with(&RUST).set("STUB_EMPTY", "yes");
    machine.setup().stops(
        "still missing after the installation: compiler make cmake pkg-config",
        "install them by hand, then run this command again",
        &[DNF],
    );
}

#[test]
fn debian_gets_what_it_lacks() {
    let outcome = debian().setup();
    outcome
        .misses("compiler make cmake pkg-config curl")
        .succeeds(&[APT_UPDATE, APT, CURL, RUSTUP]);
}

#[test]
fn debian_does_with_old_lists_of_packages() {
    let machine = debian().with(&RUST).failing("apt-get update*");
    machine.setup().succeeds(&[APT_UPDATE, APT]);
    let machine = machine.with(&["sudo"]).unprivileged();
    machine.without("cmake").setup().succeeds(&[
        "sudo -n apt-get update",
        APT_UPDATE,
        "sudo -n true",
        "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install ",
        APT,
    ]);
}

#[test]
fn a_mac_needs_the_command_line_tools_and_homebrew() {
    let machine = mac().with(&["brew"]).failing("xcode-select *");
    machine.setup().misses("cmake pkg-config").stops(
        "Apple's command line tools are missing",
        "run: xcode-select --install, then this command again",
        &["xcode-select -p"],
    );
    mac().setup().stops(
        "cmake and pkg-config are missing, and Homebrew is not installed",
        "install Homebrew (https://brew.sh), or cmake and pkg-config by other means",
        &["xcode-select -p"],
    );
    let machine = mac().with(&["brew"]).unprivileged();
    let calls = ["xcode-select -p", BREW, CURL, RUSTUP];
    machine.setup().succeeds(&calls);
}

#[test]
fn without_a_known_package_manager_the_tools_are_named() {
    let machine = Machine::new("Linux", &["pacman"]).with(&RUST);
    machine.setup().misses("compiler make cmake pkg-config").stops(
        "no apt-get, dnf or Homebrew here to install them with",
        "install by hand: a C++17 compiler, make, cmake, libclang with its headers, pkg-config, curl",
        &[],
    );
}

#[test]
fn nothing_is_called_where_nothing_is_missing() {
    for system in ["Linux", "Darwin"] {
        let machine = Machine::new(system, &["dnf", "apt-get", "brew", "xcode-select", "sudo"]);
        machine.with(&TOOLS).with(&RUST).setup().succeeds(&[]);
    }
}

#[test]
fn libclang_is_looked_for_where_no_variable_names_it() {
    let machine = Machine::new("Linux", &["dnf"]).with(&TOOLS).with(&RUST);
    let outcome = machine.unset("LIBCLANG_PATH").setup();
    // It is looked for in fixed places, so this machine decides; nothing else is missing either way.
    if outcome.status == Some(0) {
        outcome.succeeds(&[]);
    } else {
        outcome.misses("libclang").stops(
            "still missing after the installation: libclang",
            "install them by hand, then run this command again",
            &[DNF],
        );
    }
}

#[test]
fn rust_that_is_too_old_or_does_not_start_is_told() {
    let machine = fedora().with(&TOOLS[..4]).with(&RUST);
    let machine = machine.set("STUB_RUST", "1.63.0");
    let error = concat!(
        "rustc 1.63.0 (0123456789 2026-01-01) is too old, ",
        env!("CARGO_PKG_RUST_VERSION"),
        " is needed"
    );
    let hint = "install Rust from https://rustup.rs, or update this one";
    machine.setup().stops(error, hint, &[]);
    let machine = machine.failing("rustc *");
    let error = "the Rust toolchain does not start";
    machine.setup().stops(error, READ_ABOVE, &[]);
}

#[test]
fn a_missing_home_is_told() {
    let machine = Machine::new("Linux", &TOOLS).with(&RUST).unset("HOME");
    let hint = "set it to a folder that may be written to";
    machine.setup().stops("HOME is not set", hint, &[]);
    let machine = machine.unset("XDG_CACHE_HOME");
    machine.setup().stops("HOME is not set", hint, &[]);
}
