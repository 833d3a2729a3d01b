//! The Helm chart's templates, made from the kustomizations: their text, with what values decide put in its place.
//!
//! A place that is not there exactly as often as it should be is an error, so a change of the kustomizations is one of the
//! chart, or stops here.

use anyhow::{Context, Result, ensure};

/// A piece of a kustomization's text, what stands in its place in a template, and the value that is the same by default.
pub(crate) struct Place {
    pub(crate) text: &'static str,
    pub(crate) template: &'static str,
    pub(crate) value: Option<Value>,
}

pub(crate) struct Value {
    pub(crate) path: &'static str,
    /// In YAML; what it is in the text.
    pub(crate) default: &'static str,
}

const fn place(text: &'static str, template: &'static str) -> Place {
    Place {
        text,
        template,
        value: None,
    }
}

const fn valued(
    text: &'static str,
    template: &'static str,
    path: &'static str,
    default: &'static str,
) -> Place {
    Place {
        text,
        template,
        value: Some(Value { path, default }),
    }
}

const NAMESPACE: Place = place(
    "namespace: ringfence-system\n",
    "namespace: {{ .Release.Namespace | quote }}\n",
);

const IMAGE: Place = valued(
    "image: localhost/ringfence\n",
    "image: \"{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}\"\n",
    "/image/repository",
    "localhost/ringfence",
);

const PULL: Place = valued(
    "imagePullPolicy: IfNotPresent\n",
    "imagePullPolicy: {{ .Values.image.pullPolicy }}\n",
    "/image/pullPolicy",
    "IfNotPresent",
);

/// Of what runs on every node.
pub(crate) const DAEMON_SET: [Place; 11] = [
    NAMESPACE,
    IMAGE,
    PULL,
    valued(
        "    type: RollingUpdate\n    rollingUpdate: {maxUnavailable: 1}\n",
        "    {{- toYaml .Values.updateStrategy | nindent 4 }}\n",
        "/updateStrategy",
        "{type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}",
    ),
    place(
        "      annotations:\n",
        "      annotations:\n        ringfence.io/settings: {{ toJson .Values.settings | sha256sum | quote }}\n",
    ),
    valued(
        "      priorityClassName: system-node-critical\n",
        "      {{- with .Values.image.pullSecrets }}\n      imagePullSecrets: {{ toJson . }}\n      {{- end }}\n      \
         priorityClassName: {{ .Values.priorityClassName | quote }}\n",
        "/priorityClassName",
        "system-node-critical",
    ),
    valued(
        "nodeSelector: {kubernetes.io/os: linux}\n",
        "nodeSelector: {{ toJson .Values.nodeSelector }}\n",
        "/nodeSelector",
        "{kubernetes.io/os: linux}",
    ),
    valued(
        "tolerations: [{operator: Exists}]\n",
        "tolerations: {{ toJson .Values.tolerations }}\n",
        "/tolerations",
        "[{operator: Exists}]",
    ),
    valued(
        "            requests: {cpu: 50m, memory: 128Mi}\n            limits: {memory: 1Gi}\n",
        "            {{- toYaml .Values.resources | nindent 12 }}\n",
        "/resources",
        "{requests: {cpu: 50m, memory: 128Mi}, limits: {memory: 1Gi}}",
    ),
    place("      containers:\n", "PLUGIN      containers:\nBESIDE"),
    // A strategic merge puts what it adds first.
    place("      volumes:\n", "      volumes:\nFOLDERS"),
];

pub(crate) const SETTINGS: [Place; 2] = [
    NAMESPACE,
    valued(
        "    kubernetes: {}\n",
        "    {{- toYaml .Values.settings | nindent 4 }}\n",
        "/settings",
        "{kubernetes: {}}",
    ),
];

/// Of the CNI plugin.
pub(crate) const PLUGIN: [Place; 2] = [
    valued(
        "hostPath: {path: /etc/cni/net.d,",
        "hostPath: {path: {{ .Values.cni.confDir | quote }},",
        "/cni/confDir",
        "/etc/cni/net.d",
    ),
    valued(
        "hostPath: {path: /opt/cni/bin,",
        "hostPath: {path: {{ .Values.cni.binDir | quote }},",
        "/cni/binDir",
        "/opt/cni/bin",
    ),
];

/// The text of a template's file, from that of the kustomizations (`read`).
pub(crate) fn template(name: &str, read: impl Fn(&str) -> Result<String>) -> Result<String> {
    let base = read(&format!("base/{name}"))?;
    let made = match name {
        "namespace.yaml" => format!(
            "{{{{- if .Values.namespace.create }}}}\n{}{{{{- end }}}}\n",
            filled(
                &base,
                &[place(
                    "name: ringfence-system\n",
                    "name: {{ .Release.Namespace | quote }}\n"
                )]
            )?
        ),
        "rbac.yaml" => base.replace(NAMESPACE.text, NAMESPACE.template),
        "settings.yaml" => filled(&base, &SETTINGS)?,
        "daemonset.yaml" => daemon_set(&base, &read("with-cni/plugin.yaml")?)?,
        other => anyhow::bail!("nothing is known of {other}"),
    };
    let source = format!(
        "# Made from agent/deploy/base/{name}: change that, then `UPDATE_GOLDEN=1 cargo test --test deploy`.\n"
    );
    Ok(source + &made)
}

/// With the plugin's parts where a strategic merge puts them.
fn daemon_set(base: &str, plugin: &str) -> Result<String> {
    let mut plugin = filled(plugin, &PLUGIN)?;
    for place in [IMAGE, PULL] {
        ensure!(plugin.contains(place.text), "no {:?}", place.text);
        plugin = plugin.replace(place.text, place.template);
    }
    let (_, parts) = plugin
        .split_once("      initContainers:\n")
        .context("no initContainers")?;
    let (containers, parts) = parts
        .split_once("      containers:\n")
        .context("no containers")?;
    let (beside, volumes) = parts.split_once("      volumes:\n").context("no volumes")?;
    let when = |text: &str| {
        format!("      {{{{- if .Values.cni.enabled }}}}\n{text}      {{{{- end }}}}\n")
    };
    let containers = when(&format!("      initContainers:\n{containers}"));
    let beside = when(beside);
    let volumes = when(&format!("{}\n", volumes.trim_end()));
    let daemon_set = filled(base, &DAEMON_SET)?;
    Ok(daemon_set
        .replace("PLUGIN", &containers)
        .replace("BESIDE", &beside)
        .replace("FOLDERS", &volumes))
}

/// Each kind in a file of its own, as Helm wants it, and in one line: by its name.
pub(crate) fn kinds(read: impl Fn(&str) -> Result<String>) -> Result<Vec<(String, String)>> {
    let all: serde_json::Value = serde_json::from_str(&read("base/crds.yaml")?)?;
    let items = all["items"].as_array().context("no items")?;
    let file = |kind: &serde_json::Value| {
        let name = kind["metadata"]["name"].as_str().context("no name")?;
        Ok((format!("{name}.yaml"), format!("{kind}\n")))
    };
    items.iter().map(file).collect()
}

fn filled(text: &str, places: &[Place]) -> Result<String> {
    let mut filled = text.to_owned();
    for place in places {
        let times = filled.matches(place.text).count();
        ensure!(times == 1, "{times} times, expected once: {:?}", place.text);
        filled = filled.replace(place.text, place.template);
    }
    Ok(filled)
}
