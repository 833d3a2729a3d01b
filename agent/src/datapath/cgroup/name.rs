//! What a manifest may write to name a cgroup.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use agent_policy::model::EndpointSpec;

/// A name that cannot lead out of the hierarchy, nor to its root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CgroupName {
    /// By its path below the root of the hierarchy.
    Path(PathBuf),
    /// A unit of systemd that may lie in any slice.
    Unit(String),
    /// A slice of systemd: `a-b.slice` lies in `a.slice`.
    Slice { unit: String, path: PathBuf },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "cgroup '{0}': give the path below the cgroup2 root, like system.slice/nginx.service, without '.' or '..'"
    )]
    Path(String),
    #[error("the root cgroup is the node itself, not an endpoint")]
    Root,
    #[error(
        "systemd unit '{0}': give the whole name, like nginx.service; of units that have processes: service, scope, slice, socket, mount, swap"
    )]
    Unit(String),
}

/// Units that systemd makes cgroups for.
const KINDS: [&str; 6] = ["service", "scope", "slice", "socket", "mount", "swap"];

impl CgroupName {
    /// What an endpoint known by its cgroup is known by; `None` for one known by its interface.
    pub fn of(spec: &EndpointSpec) -> Option<Result<Self, NameError>> {
        match spec {
            EndpointSpec::Cgroup(path) => Some(Self::path(path)),
            EndpointSpec::SystemdUnit(unit) => Some(Self::unit(unit)),
            EndpointSpec::Interface(_) | EndpointSpec::Netns(_) => None,
        }
    }

    /// A leading slash is the root of the hierarchy, as in `/proc/<pid>/cgroup`.
    pub fn path(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::Path(text.to_owned());
        let below = text.strip_prefix('/').unwrap_or(text);
        if below.is_empty() && !text.is_empty() {
            return Err(NameError::Root);
        }
        // Components alone would not show a '.' inside, nor a doubled slash.
        let plain = below
            .trim_end_matches('/')
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
        if !plain {
            return Err(refused());
        }
        let path: PathBuf = Path::new(below).components().collect();
        let within = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if within {
            Ok(Self::Path(path))
        } else {
            Err(refused())
        }
    }

    pub fn unit(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::Unit(text.to_owned());
        let (stem, kind) = text.rsplit_once('.').ok_or_else(refused)?;
        if stem.is_empty() || !KINDS.contains(&kind) || text.contains(['/', '\0']) {
            return Err(refused());
        }
        if kind != "slice" {
            return Ok(Self::Unit(text.to_owned()));
        }
        if stem == "-" {
            return Err(NameError::Root);
        }
        Ok(Self::Slice {
            unit: text.to_owned(),
            path: slice_path(stem).ok_or_else(refused)?,
        })
    }
}

impl fmt::Display for CgroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "cgroup {}", path.display()),
            Self::Unit(unit) | Self::Slice { unit, .. } => write!(f, "systemd unit {unit}"),
        }
    }
}

/// `a-b-c` lies in `a.slice/a-b.slice`: each dash is a step down.
fn slice_path(stem: &str) -> Option<PathBuf> {
    if stem.split('-').any(str::is_empty) {
        return None;
    }
    let dashes = stem.match_indices('-').map(|(dash, _)| dash);
    Some(
        dashes
            .chain([stem.len()])
            .map(|end| format!("{}.slice", &stem[..end]))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_root() {
        let path = |text: &str| CgroupName::path(text);
        let below = Ok(CgroupName::Path("system.slice/nginx.service".into()));
        assert_eq!(path("system.slice/nginx.service"), below);
        assert_eq!(path("/system.slice/nginx.service/"), below);
        for text in ["", "..", "a/../b", "./a", "a/./b", "a//b", "//a", "a\0b"] {
            assert!(path(text).is_err(), "{text:?}");
        }
        assert_eq!(path("/"), Err(NameError::Root));
    }

    #[test]
    fn a_slice_lies_where_its_dashes_say() {
        let CgroupName::Slice { path, .. } = CgroupName::unit("a-b-c.slice").unwrap() else {
            panic!("not a slice");
        };
        assert_eq!(path, Path::new("a.slice/a-b.slice/a-b-c.slice"));
        for text in ["-a.slice", "a--b.slice", "a-.slice"] {
            assert!(CgroupName::unit(text).is_err(), "{text}");
        }
        assert_eq!(CgroupName::unit("-.slice"), Err(NameError::Root));
    }

    #[test]
    fn a_unit_is_named_in_full() {
        assert!(CgroupName::unit("nginx.service").is_ok());
        assert!(CgroupName::unit("getty@tty1.service").is_ok());
        for text in ["nginx", ".service", "nginx.timer", "a/b.service", ""] {
            assert!(CgroupName::unit(text).is_err(), "{text:?}");
        }
        let error = CgroupName::unit("nginx").unwrap_err().to_string();
        assert!(
            error.contains("'nginx'") && error.contains("nginx.service"),
            "{error}"
        );
    }
}
