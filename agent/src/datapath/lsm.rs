//! Whether programs can be security modules (`CONFIG_BPF_LSM`, Linux 5.7, of a cgroup 6.0): only where the kernel was
//! started with `bpf` among them.
//!
//! Never required: what such a program refuses, others refuse to most callers.

use std::{fs, io, sync::Arc};

use aya::programs::ProgramError;

/// The modules in force, by their names, with commas between.
const MODULES: &str = "/sys/kernel/security/lsm";

/// What these programs are called in `lsm=` of the kernel's command line.
const OURS: &str = "bpf";

/// Whether they are asked, or why not.
///
/// A kernel that does not ask them lets them be loaded and attached all the same.
pub(crate) fn require() -> Result<(), Arc<str>> {
    match fs::read_to_string(MODULES) {
        Ok(modules) if is_among(&modules) => Ok(()),
        Ok(_) => {
            Err("the kernel was started without `bpf` among its security modules (lsm=)".into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("no security modules are shown in {MODULES} (securityfs)").into())
        }
        Err(error) => Err(format!("cannot read {MODULES}: {error}").into()),
    }
}

/// Why a program is not loaded, in a few words.
pub(crate) fn refused(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, .. } => {
            format!("the kernel refused the program of a security module: {io_error}")
        }
        error => {
            format!("the kernel knows no security modules of programs (CONFIG_BPF_LSM): {error}")
        }
    }
}

fn is_among(modules: &str) -> bool {
    modules.trim().split(',').any(|module| module == OURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_asked_where_they_are_among_the_modules() {
        assert!(is_among("capability,landlock,yama,bpf\n"));
        assert!(is_among("bpf"));
        for without in ["", "capability,landlock", "capability,bpfx"] {
            assert!(!is_among(without), "{without}");
        }
    }
}
