//! `cargo xtask setup`: installs what the build and the tests need, where it is missing.

mod debian;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    shell,
    toolchain::{self, Compiler, Road},
};
use debian::Tool;

/// The bpf-linker that is installed where there is none, or one of another LLVM.
const BPF_LINKER: &str = "0.13.0";

/// Install what is missing to build and test; says what it does, safe to repeat.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say what is missing and change nothing; exits with 1 if anything is.
    #[arg(long)]
    dry_run: bool,
}

/// Whether what is missing may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Install,
    DryRun,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    set_up(if args.dry_run {
        Mode::DryRun
    } else {
        Mode::Install
    })
}

/// Set-up as the first step of another command.
pub(crate) fn ensure() -> Result<()> {
    set_up(Mode::Install)
}

/// The programs alone, for a command that builds nothing for BPF.
pub(crate) fn ensure_tools() -> Result<()> {
    tools(&debian::TOOLS, Mode::Install)
}

/// What boots another kernel in a virtual machine; only the command that does so asks for it.
pub(crate) fn ensure_virtual_machines() -> Result<()> {
    tools(&debian::VIRTUAL_MACHINES, Mode::Install)
}

/// What a cluster is built and run with; only the commands that bring one up ask for it.
pub(crate) fn ensure_cluster() -> Result<()> {
    tools(&debian::CLUSTER, Mode::Install)
}

/// What fetches libraries of Python that read what ringfence writes; only the tests ask for it.
pub(crate) fn ensure_python() -> Result<()> {
    tools(&debian::PYTHON, Mode::Install)
}

fn set_up(mode: Mode) -> Result<()> {
    tools(&debian::TOOLS, mode)?;
    if rustix::process::geteuid().is_root() {
        tools(&debian::PRIVILEGED, mode)?;
    }
    let compiler = compiler(mode)?;
    linker(&compiler, mode)?;
    eprintln!("setup: nothing is missing");
    Ok(())
}

/// Programs that the build and the tests call.
fn tools(wanted: &[Tool], mode: Mode) -> Result<()> {
    let missing: Vec<_> = wanted
        .iter()
        .filter(|tool| shell::find(tool.program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        eprintln!("setup: `{}` is missing: {}", tool.program, tool.why);
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    debian::install(&packages, mode)?;
    for tool in missing {
        shell::find(tool.program)
            .with_context(|| format!("{} has no program `{}`", tool.package, tool.program))?;
    }
    Ok(())
}

/// A compiler that can build `core` for BPF.
fn compiler(mode: Mode) -> Result<Compiler> {
    let found = Compiler::locate().or_else(|why| {
        for why in &why {
            eprintln!("setup: {why}");
        }
        if !debian::is_here() {
            return Err(anyhow!("no compiler for BPF; {OTHER_SYSTEMS}"));
        }
        eprintln!("setup: taking the Debian road: a compiler with library source, packaged");
        debian::install(&debian::COMPILER, mode)?;
        Compiler::locate().map_err(|why| anyhow!("no compiler for BPF: {}", why.join("; ")))
    });
    let (compiler, detour) = found?;
    if let Some(why) = detour {
        eprintln!("setup: not {why}");
    }
    let Compiler {
        road,
        release,
        llvm,
    } = &compiler;
    eprintln!("setup: BPF is built by {road}: rustc {release}, LLVM {llvm}");
    if *road == Road::System && !compiler.has_clippy() && debian::is_here() {
        debian::install(&[debian::CLIPPY], mode)?;
    }
    Ok(compiler)
}

const OTHER_SYSTEMS: &str = "install one of:
  - the library source of the pinned toolchain: `rustup component add rust-src`
  - a packaged Rust with library source in /usr/bin (on Debian: rustc-web cargo-web rust-web-src)
and run `cargo xtask setup` again";

/// A bpf-linker of the compiler's LLVM.
fn linker(compiler: &Compiler, mode: Mode) -> Result<()> {
    let llvm = compiler.llvm;
    let why = match toolchain::linker(llvm) {
        Ok(file) => {
            eprintln!("setup: linked by {}, LLVM {llvm}", file.display());
            return Ok(());
        }
        Err(why) => why,
    };
    eprintln!("setup: {why}");
    let prefix = llvm_prefix(llvm, mode)?;

    let mut install = shell::command("cargo");
    install
        .env("LLVM_PREFIX", prefix)
        .args(["install", "bpf-linker", "--version", BPF_LINKER]);
    install.args([
        "--locked",
        "--no-default-features",
        "--features",
        &format!("llvm-{llvm}"),
    ]);
    if shell::find("bpf-linker").is_some() {
        // Somebody's linker for another compiler: leave it alone.
        install.arg("--root").arg(toolchain::private_tools());
    }
    if mode == Mode::DryRun {
        bail!("bpf-linker {BPF_LINKER} is to be installed");
    }
    shell::run(&mut install).with_context(|| {
        format!(
            "failed to install bpf-linker {BPF_LINKER} on LLVM {llvm}: \
             it needs the registry, a C linker, and an LLVM that it knows (21 to 23)"
        )
    })?;
    toolchain::linker(llvm)
        .map(|_| ())
        .map_err(|why| anyhow!(why))
}

/// Where the development files of that LLVM lie.
fn llvm_prefix(llvm: u32, mode: Mode) -> Result<String> {
    let config = format!("llvm-config-{llvm}");
    let prefix = || {
        let config = shell::find(&config)?;
        Some(
            shell::output(shell::command(config).arg("--prefix"))
                .ok()?
                .trim()
                .to_owned(),
        )
    };
    if let Some(prefix) = prefix() {
        return Ok(prefix);
    }
    eprintln!("setup: `{config}` is missing: bpf-linker is built on it");
    if !debian::is_here() {
        bail!(
            "install the development files of LLVM {llvm} (a program `{config}` on PATH), \
             or a bpf-linker that is built on LLVM {llvm}"
        );
    }
    debian::install(&[&format!("llvm-{llvm}-dev")], mode)?;
    prefix().with_context(|| format!("llvm-{llvm}-dev has no working `{config}`"))
}
