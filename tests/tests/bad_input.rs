//! Input that cannot be enforced: what is in force stays, and the message says what is wrong.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::probe::Protocol;
use ringfence_lab::scene::{FRIEND_AND_STRANGER, FRIEND_ONLY, PORT, Scene};
use rustix::fs::{FileType, Mode, mknodat};
use serde_json::Value;

/// The exit code of an error.
const ERROR: i32 = 2;
/// How long `status` may take to tell of an error.
const TOLD: Duration = Duration::from_secs(15);
/// Attempts after an accident was told.
const SOME: u64 = 50;

/// `FRIEND_ONLY`, and so many addresses beside the friend's that may come in too.
fn friend_and_addresses(number: u8) -> String {
    let mut peers = String::new();
    for last in 1..=number {
        write!(peers, ", {{ipBlock: {{cidr: 192.0.2.{last}/32}}}}").expect("a String takes all");
    }
    let friend = "{podSelector: {matchLabels: {app: friend}}}";
    FRIEND_ONLY.replace(friend, &format!("{friend}{peers}"))
}

/// An agent for the scene whose tables are as small as `capacities` says.
fn with_capacities(scene: &Scene, capacities: &str) -> Result<Agent> {
    let config = format!("capacities: {{{capacities}}}\n");
    let config = scene.lab.write("ringfence.yaml", &config)?;
    Ok(scene.agent()?.with(&["--config", text(&config)?]))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("paths of a lab are UTF-8")
}

/// Runs the agent to an end that has to come by itself.
fn refused(scene: &Scene, agent: &Agent, expected: &[&str]) -> Result<()> {
    let output = scene.lab.host().output(&mut agent.run_command())?;
    says(&output, expected)
}

fn says(output: &Output, expected: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(ERROR),
        "{}, expected exit code {ERROR}: {said}",
        output.status
    );
    for words in expected {
        ensure!(said.contains(words), "{words:?} is not in: {said}");
    }
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

/// Nobody is held, because nothing was attached.
fn nothing_is_enforced(scene: &Scene) -> Result<()> {
    for to in scene.server.at(PORT) {
        scene.stranger.reaches(Protocol::Tcp, to)?;
    }
    Ok(())
}

/// While `accident` happens, the stranger is never let in and the friend's connection never
/// suffers; then the last load in `status` tells all of `expected`.
fn changes_nothing(
    scene: &Scene,
    agent: &Agent,
    expected: &[&str],
    accident: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let stream = scene.friend.stream(scene.server.v4(PORT))?;
    let prober = scene.stranger.prober(Protocol::Tcp, scene.server.v6(PORT));
    prober.makes(SOME)?;
    accident()?;
    let told = agent.status_eventually(TOLD, |status| {
        let load = &status["last_load"];
        let errors = load["errors"].to_string();
        load["ok"] == Value::Bool(false) && expected.iter().all(|words| errors.contains(words))
    });
    ensure!(
        told,
        "status does not tell of {expected:?}: {:#}\n{}",
        agent.status()?["last_load"],
        agent.log()
    );
    prober.makes(SOME)?;
    prober.finish_denied().with_context(|| agent.log())?;
    stream.advances()?;
    stream.finish().unbroken()?;
    scene.friend.reaches(Protocol::Udp, scene.server.v6(PORT))
}

/// The agent is well again once the input is.
fn mended(agent: &Agent) -> Result<()> {
    let well = agent.status_eventually(TOLD, |status| status["last_load"]["ok"] == true);
    ensure!(well, "{:#}\n{}", agent.status()?["last_load"], agent.log());
    Ok(())
}

#[test]
fn a_policy_that_does_not_fit_is_refused_at_the_start_with_the_numbers() -> Result<()> {
    let scene = Scene::with(&friend_and_addresses(20))?;
    let agent = with_capacities(&scene, "prefixes: 8")?;
    let numbers = "table `ipcache_v4` has room for 8 entries and would need ";
    refused(&scene, &agent, &[numbers, "nothing has been changed"])?;
    nothing_is_enforced(&scene)?;

    // Tables keep the room they were made with until they are taken away.
    agent.detach()?;
    let mut agent = with_capacities(&scene, "prefixes: 64")?;
    agent.start().context("with room enough")?;
    scene
        .stranger
        .is_dropped_to(Protocol::Tcp, scene.server.v4(PORT))
}

#[test]
fn more_endpoints_than_there_is_room_for_are_refused_with_the_number() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = with_capacities(&scene, "endpoints: 2")?;
    refused(&scene, &agent, &["room for 2 endpoints"])?;
    nothing_is_enforced(&scene)
}

#[test]
fn a_policy_that_outgrows_a_table_while_running_is_refused_with_the_numbers() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = with_capacities(&scene, "prefixes: 8")?;
    agent.start()?;
    let before = agent.status()?;
    let numbers = "table `ipcache_v4` has room for 8 entries and would need ";
    changes_nothing(
        &scene,
        &agent,
        &[numbers, "nothing has been changed"],
        || scene.policy(&friend_and_addresses(20)),
    )?;
    let after = agent.status()?;
    for unchanged in ["generation", "tables"] {
        let own = |status: &Value| {
            let mut value = status[unchanged].clone();
            if let Some(tables) = value.as_array_mut() {
                // Flows and denials come and go.
                tables.retain(|table| {
                    table["name"]
                        .as_str()
                        .is_some_and(|name| !name.starts_with("flows") && name != "denials")
                });
            }
            value
        };
        ensure!(
            own(&before) == own(&after),
            "{unchanged} changed from {:#} to {:#}",
            before[unchanged],
            after[unchanged]
        );
    }
    scene.policy(FRIEND_ONLY)?;
    mended(&agent)
}

#[test]
fn two_interface_endpoints_with_one_address_are_refused_by_both_places() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let twin = r#"{"apiVersion": "ringfence.io/v1alpha1", "kind": "Workload",
        "metadata": {"namespace": "shop", "name": "twin", "labels": {"app": "friend"}},
        "spec": {"addresses": ["10.77.0.4"], "endpoint": {"interface": "veth-server"}}}"#;
    let agent = scene.enforced()?;
    let expected = ["10.77.0.4", "twin.yaml:3:", "shop/stranger"];
    changes_nothing(&scene, &agent, &expected, || {
        scene.lab.write("policies/twin.yaml", twin).map(|_| ())
    })?;
    drop(agent);

    let agent = scene.agent()?;
    refused(&scene, &agent, &expected)?;
    nothing_is_enforced(&scene)?;
    fs::remove_file(scene.policies().join("twin.yaml")).context("cannot remove the twin")?;
    scene.agent()?.start()
}

#[test]
fn a_fifo_and_a_huge_file_hold_nothing_up() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let (fifo, huge) = (
        scene.policies().join("fifo.yaml"),
        scene.policies().join("huge.yaml"),
    );
    let expected = [
        "fifo.yaml",
        "expected a regular file",
        "huge.yaml",
        "209715200",
    ];
    changes_nothing(&scene, &agent, &expected, || {
        mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0)
            .context("cannot make a FIFO")?;
        let file = fs::File::create(&huge).context("cannot make a file")?;
        file.set_len(200 << 20).context("cannot make it large")
    })?;
    // Other files are followed meanwhile.
    scene.policy(FRIEND_AND_STRANGER)?;
    let open = ringfence_lab::wait::eventually(TOLD, || {
        let to = scene.server.v4(PORT);
        scene.stranger.reaches(Protocol::Udp, to).is_ok()
    });
    ensure!(open, "a good file is held up\n{}", agent.log());
    for path in [fifo, huge] {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    mended(&agent)
}

#[test]
fn a_file_that_is_not_utf_8_changes_nothing_and_shows() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let path = scene.policies().join("policy.yaml");
    changes_nothing(&scene, &agent, &["policy.yaml:3:", "UTF-8"], || {
        fs::write(&path, b"kind: NetworkPolicy\nmetadata:\n  name: \xff\xfe\n")
            .context("cannot write")
    })?;
    scene.policy(FRIEND_ONLY)?;
    mended(&agent)
}

#[test]
fn a_second_agent_with_the_same_state_folder_is_refused() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let _first = scene.enforced()?;
    let state = scene.lab.folder().join("agent/state");
    let policies = scene.policies();
    let second = Agent::prepare(&scene.lab, "second", &[&policies])?;
    let mut command = second.run_command();
    replace_option(&mut command, "--state-dir", text(&state)?);
    let output = scene.lab.host().output(&mut command)?;
    says(&output, &["another agent uses state folder", text(&state)?])?;
    ensure!(
        !second.bpffs().exists(),
        "the second agent made its folder of pins"
    );
    scene
        .stranger
        .is_dropped_to(Protocol::Tcp, scene.server.v4(PORT))
}

#[test]
fn a_second_agent_with_the_same_socket_is_refused() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let first = scene.enforced()?;
    let policies = scene.policies();
    let second = Agent::prepare(&scene.lab, "second", &[&policies])?;
    let socket = first.socket();
    let mut command = second.run_command();
    replace_option(&mut command, "--socket", text(&socket)?);
    let output = scene.lab.host().output(&mut command)?;
    says(
        &output,
        &["another agent listens on", text(&socket)?, "--socket"],
    )?;
    first.status().context("the first agent is still there")?;
    Ok(())
}

/// The same command line, with another value behind `option`.
fn replace_option(command: &mut std::process::Command, option: &str, value: &str) {
    let mut arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let at = arguments.iter().position(|argument| argument == option);
    let value_at = at.expect("the option is there") + 1;
    arguments[value_at] = value.into();
    let mut replaced = std::process::Command::new(command.get_program());
    replaced.args(arguments);
    *command = replaced;
}

#[test]
fn a_broken_file_at_the_first_start_is_an_error_and_changes_nothing() -> Result<()> {
    let scene = Scene::with("kind: NetworkPolicy\nspec: [")?;
    let agent = scene.agent()?;
    refused(
        &scene,
        &agent,
        &["policy.yaml:3:1: error[syntax]", "nothing has been changed"],
    )?;
    ensure!(!agent.bpffs().exists(), "it has made its folder of pins");
    ensure!(!agent.socket().exists(), "it has left its socket behind");
    nothing_is_enforced(&scene)
}

#[test]
fn a_broken_file_at_a_restart_is_an_error_and_enforcement_goes_on() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    agent.kill()?;
    scene.policy("kind: [")?;
    refused(&scene, &agent, &["policy.yaml:2:1: error[syntax]"])?;
    scene.friend.reaches(Protocol::Tcp, scene.server.v4(PORT))?;
    scene
        .stranger
        .is_dropped_to(Protocol::Tcp, scene.server.v4(PORT))
}

#[test]
fn printed_settings_are_settings_that_print_the_same() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = with_capacities(&scene, "prefixes: 8, flows: 100")?;
    let print = |mut command: std::process::Command| -> Result<String> {
        let output = scene.lab.host().output(command.arg("--print-config"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", output.status);
        String::from_utf8(output.stdout).context("settings are UTF-8")
    };
    let printed = print(agent.run_command())?;
    ensure!(printed.contains("prefixes: 8"), "{printed}");
    ensure!(printed.contains(text(&agent.socket())?), "{printed}");
    let file = scene.lab.write("printed.yaml", &printed)?;
    for form in [&["-o", "table"], &["-o", "json"]] {
        let mut command = std::process::Command::new(agent.binary());
        command.args(["run", "--config"]).arg(&file).args(form);
        let again = print(command)?;
        let json = scene.lab.write("printed-again.json", &again)?;
        let mut command = std::process::Command::new(agent.binary());
        command.args(["run", "--config"]).arg(json);
        let third = print(command)?;
        ensure!(third == printed, "{printed}\n{third}");
    }
    ensure!(
        !agent.bpffs().exists(),
        "asking for settings has made a folder of pins"
    );
    Ok(())
}

#[test]
fn a_setting_that_nobody_knows_is_named_with_its_place() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = with_capacities(&scene, "prefices: 8")?;
    refused(&scene, &agent, &["ringfence.yaml:1:", "prefices"])?;
    nothing_is_enforced(&scene)
}

/// Lines of a policy, and bytes that the agent may take for it, an unoptimised build included.
const LINES: usize = 100_000;
const MEMORY: u64 = 512 << 20;
/// Of one file as many problems are told, and how many more there are.
const TOLD_OF_A_FILE: usize = 10_000;

/// The most memory that a process has had so far, in bytes.
fn peak(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes.context("no VmHWM")?.trim().parse()?;
    Ok(kilobytes << 10)
}

/// `policy check` of a file, with no more memory than [`MEMORY`].
fn checks(agent: &Agent, file: &Path) -> Result<Output> {
    let mut command = std::process::Command::new("sh");
    let limited = format!(
        "ulimit -v {} && exec \"$0\" policy check -f \"$1\"",
        MEMORY >> 10
    );
    command.args(["-c", &limited]).arg(agent.binary()).arg(file);
    Ok(command.output()?)
}

#[test]
fn a_policy_of_a_hundred_thousand_lines_is_taken() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    // Ten lines each. The last one lets the stranger in.
    let policy = |number: usize, of: &str, from: &str| {
        format!(
            "---\n\
             apiVersion: networking.k8s.io/v1\n\
             kind: NetworkPolicy\n\
             metadata: {{namespace: shop, name: p{number}}}\n\
             spec:\n  \
               podSelector: {{matchLabels: {{app: {of}}}}}\n  \
               ingress:\n    \
                 - from:\n        \
                     - podSelector: {{matchLabels: {{app: {from}}}}}\n      \
                   ports: [{{port: 8080}}]\n"
        )
    };
    let last = LINES / 10 - 1;
    let others = (0..last).map(|number| {
        let of = ["server", "nobody"][usize::from(number % 100 != 0)];
        policy(number, of, &format!("client-{number}"))
    });
    let text: String = others.chain([policy(last, "server", "stranger")]).collect();
    ensure!(text.lines().count() == LINES);
    let file = scene.lab.write("policies/many.yaml", &text)?;
    let to = scene.server.v4(PORT);
    let is_open = || scene.stranger.reaches(Protocol::Tcp, to).is_ok();
    ensure!(
        ringfence_lab::wait::eventually(TOLD, is_open),
        "{}",
        agent.log()
    );
    mended(&agent)?;
    scene.friend.reaches(Protocol::Tcp, to)?;
    let used = peak(agent.process().context("no agent")?)?;
    ensure!(used < MEMORY, "the agent took {used} bytes");
    let output = checks(&agent, &file)?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn of_a_hundred_thousand_errors_the_number_is_told() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let blocks = (0..LINES).map(|number| format!("        - ipBlock: {{cidr: none-{number}}}\n"));
    let blocks: String = blocks.collect();
    let text = FRIEND_ONLY.replace("name: server}", "name: wrong}");
    let (head, _) = text.split_once("    - from:").context("a rule")?;
    let text = format!("{head}    - from:\n{blocks}");
    let file = scene.policies().join("wrong.yaml");
    let more = format!("{} more problems are not shown", LINES - TOLD_OF_A_FILE);
    let expected = ["wrong.yaml", "none-0", "none-9999", &more];
    changes_nothing(&scene, &agent, &expected, || {
        fs::write(&file, &text).context("cannot write a policy")
    })?;
    let used = peak(agent.process().context("no agent")?)?;
    ensure!(used < MEMORY, "the agent took {used} bytes");

    let output = checks(&agent, &file)?;
    ensure!(output.status.code() == Some(ERROR), "{}", output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    for words in expected {
        ensure!(said.contains(words), "{words:?} is not in the output");
    }
    // Nor does the agent start with it, and it says why.
    drop(agent);
    let agent = scene.agent()?;
    refused(&scene, &agent, &expected)?;
    nothing_is_enforced(&scene)
}
