//! The llama-server to compare with, compiled once for this machine's processor.
//!
//! Its source is the one inside the PyPI source package of `llama-cpp-python`, which carries the
//! whole tree, the server included. Cargo's own environment is passed on, so the repair of GCC's
//! AMX header in `.cargo/config.toml` holds for it too: both servers get the same kernels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::machine;

/// The package and the version whose llama.cpp is compiled.
const PACKAGE: &str = "llama-cpp-python";
const VERSION: &str = "0.3.36";

/// A native server and nothing else: no page, no TLS, no tests.
const CMAKE_OPTIONS: [&str; 9] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
];

/// Path of the server; fetches and compiles it where it is not there yet.
pub(super) fn ensure() -> Result<PathBuf> {
    let cache = machine::cache_folder()?;
    let build = cache.join(format!("llama-server-{VERSION}"));
    let program = build.join("bin").join("llama-server");
    if program.is_file() {
        return Ok(program);
    }
    let source = unpack(&cache)?;
    eprintln!(
        "bench: compiling llama-server once, for about ten minutes on two cores, in {}",
        build.display()
    );
    let mut configure = machine::cmake();
    configure
        .arg("-S")
        .arg(source.join("vendor").join("llama.cpp"))
        .arg("-B")
        .arg(&build)
        .args(CMAKE_OPTIONS);
    if Command::new("ninja").arg("--version").output().is_ok() {
        configure.args(["-G", "Ninja"]);
    }
    run(&mut configure)?;
    let jobs = machine::core_count().to_string();
    run(machine::cmake().arg("--build").arg(&build).args([
        "--target",
        "llama-server",
        "--parallel",
        &jobs,
    ]))?;
    ensure!(
        program.is_file(),
        "the build ended without {}",
        program.display()
    );
    Ok(program)
}

/// The unpacked source package in the cache folder.
fn unpack(cache: &Path) -> Result<PathBuf> {
    let name = format!("{}-{VERSION}", PACKAGE.replace('-', "_"));
    let source = cache.join(&name);
    if source.join("vendor").is_dir() {
        return Ok(source);
    }
    let archive = cache.join(format!("{name}.tar.gz"));
    if !archive.is_file() {
        eprintln!("bench: fetching the source of llama-server ({PACKAGE} {VERSION}) with pip");
        let requirement = format!("{PACKAGE}=={VERSION}");
        run(Command::new("python3")
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                ":all:",
                "--dest",
            ])
            .arg(cache)
            .arg(requirement))?;
    }
    // Unpacked beside its place first: a broken run must not leave half a tree behind.
    let partial = cache.join(format!("{name}.partial"));
    if partial.is_dir() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    run(Command::new("tar")
        .arg("xzf")
        .arg(&archive)
        .arg("-C")
        .arg(&partial))?;
    fs::rename(partial.join(&name), &source)
        .context("the archive does not hold the folder expected")?;
    fs::remove_dir_all(&partial)?;
    Ok(source)
}

/// Runs a command to its end; stdout is for the table alone.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("{program} cannot be started; hint: install it, or name a server with --llama-server"))?;
    if !status.success() {
        bail!("{program} failed ({status}); hint: --llama-server PATH uses a server you have");
    }
    Ok(())
}
