//! Whether objects are taken from the Kubernetes API, and how it is reached.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings that can be worked with; there are none where the API is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct KubernetesConfig {
    /// `None`: that of `$KUBECONFIG`, or else what a pod is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawKubernetes {
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl RawKubernetes {
    pub(super) fn over(self, below: Self) -> Self {
        let Self { kubeconfig } = self;
        Self {
            kubeconfig: kubeconfig.or(below.kubeconfig),
        }
    }
}

impl KubernetesConfig {
    pub(super) fn check(raw: RawKubernetes) -> Result<Self, super::ConfigError> {
        let RawKubernetes { kubeconfig } = raw;
        let kubeconfig = kubeconfig.map(|path| {
            std::path::absolute(&path).map_err(|error| {
                super::refuse("kubernetes.kubeconfig", &path.display(), error.to_string())
            })
        });
        Ok(Self {
            kubeconfig: kubeconfig.transpose()?,
        })
    }
}
