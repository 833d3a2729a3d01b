//! What kubelet calls the cgroups of pods, with either of its drivers.
//!
//! | driver | path |
//! |---|---|
//! | cgroupfs | `kubepods/burstable/pod<UID>/<container>` |
//! | systemd | `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID>.slice/cri-containerd-<container>.scope`, each `-` of the UID as `_` |
//!
//! Guaranteed pods lie in `kubepods` itself. Where kubelet has a root of its own, the systemd driver puts the name of
//! that in front. What containers are called is the runtime's, and of no matter.

/// In which the pods of a kubelet are.
const ROOT: &str = "kubepods";

/// Whether a folder of this name holds the pods of a kubelet.
pub(super) fn is_root(folder: &str) -> bool {
    match folder.strip_suffix(".slice") {
        Some(slice) => last_part(slice) == ROOT,
        None => folder == ROOT,
    }
}

/// The UID of the pod whose cgroup has this name.
pub(super) fn uid(folder: &str) -> Option<String> {
    let uid = match folder.strip_suffix(".slice") {
        Some(slice) => last_part(slice).strip_prefix("pod")?.replace('_', "-"),
        None => folder.strip_prefix("pod")?.to_owned(),
    };
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    (!uid.is_empty() && uid.chars().all(is_plain)).then_some(uid)
}

/// Of a slice, whose name is a path with `-` between its parts.
fn last_part(slice: &str) -> &str {
    slice.rsplit_once('-').map_or(slice, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "2b6c2b04-65a2-4b1f-8f5c-0f5f0c0b8f0e";
    const ESCAPED: &str = "2b6c2b04_65a2_4b1f_8f5c_0f5f0c0b8f0e";
    /// Of a pod from a file, which kubelet names by a hash.
    const STATIC: &str = "6ad7e1c4fd5e4bd4bd1b6c2a1c8b7f00";

    #[test]
    fn pods_of_both_drivers_are_known_by_their_uid() {
        let found = |folder: String| uid(&folder);
        assert_eq!(found(format!("pod{UID}")).as_deref(), Some(UID));
        assert_eq!(found(format!("pod{STATIC}")).as_deref(), Some(STATIC));
        for slice in [
            "kubepods",
            "kubepods-burstable",
            "kubelet-kubepods-besteffort",
        ] {
            let folder = format!("{slice}-pod{ESCAPED}.slice");
            assert_eq!(found(folder).as_deref(), Some(UID));
            let folder = format!("{slice}-pod{STATIC}.slice");
            assert_eq!(found(folder).as_deref(), Some(STATIC));
        }
    }

    #[test]
    fn what_is_no_pod_has_no_uid() {
        for folder in [
            "pod",
            "burstable",
            "kubepods-burstable.slice",
            "kubepods.slice",
            "cri-containerd-0123.scope",
            "crio-0123.scope",
            "pod../x",
            "kubepods-pod.slice",
        ] {
            assert_eq!(uid(folder), None, "{folder}");
        }
    }

    #[test]
    fn a_root_is_known_wherever_it_is() {
        for folder in ["kubepods", "kubepods.slice", "kubelet-kubepods.slice"] {
            assert!(is_root(folder), "{folder}");
        }
        for folder in [
            "kubepods-burstable.slice",
            "mykubepods",
            "kubelet.slice",
            "kubepods.scope",
        ] {
            assert!(!is_root(folder), "{folder}");
        }
    }
}
