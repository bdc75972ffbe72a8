//! The project's rules that a program can check: they hold for every tracked file, and each says where it is broken.
//!
//! A rule reads text and no more. What needs a compiler is clippy's, what needs a person is a review's.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::steps::{output, root};

/// The two commands a newcomer types; README shows them and CI runs them, letter by letter.
const README_COMMANDS: [&str; 2] = ["cargo run --release -- demo", "cargo test --workspace"];

pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// Gives a line for each place that breaks the rule.
    pub(crate) check: fn(&Repository) -> Vec<String>,
}

pub(crate) const ALL: &[Rule] = &[
    Rule { name: "links between documents", check: links },
    Rule { name: "README's commands are CI's", check: readme_commands },
    Rule { name: "no machine's paths or hosts", check: machine_words },
    Rule { name: "unsafe code is forbidden", check: forbids_unsafe },
    Rule { name: "every file says what it is", check: file_headers },
    Rule { name: "sled stays in be/src/store", check: sled_stays_home },
    Rule { name: "dependencies give a reason", check: dependency_reasons },
    Rule { name: "tests named in the docs exist", check: named_tests },
];

/// The tracked files, by path from the root; those that are not text are left out.
pub(crate) struct Repository {
    paths: BTreeSet<PathBuf>,
    texts: Vec<(PathBuf, String)>,
}

impl Repository {
    pub(crate) fn open() -> Result<Self> {
        let listed = output(
            Command::new("git")
                .args(["ls-files", "--cached", "--others", "--exclude-standard"])
                .current_dir(root()),
        )?;
        let paths: BTreeSet<PathBuf> =
            listed.lines().map(PathBuf::from).filter(|path| root().join(path).is_file()).collect();
        let mut texts = Vec::new();
        for path in &paths {
            let bytes = std::fs::read(root().join(path))
                .with_context(|| format!("cannot read {}", path.display()))?;
            if let Ok(text) = String::from_utf8(bytes) {
                texts.push((path.clone(), text));
            }
        }
        Ok(Self { paths, texts })
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.texts.iter().find(|(candidate, _)| candidate == Path::new(path)).map(|(_, text)| text.as_str())
    }

    fn ending(&self, extension: &str) -> impl Iterator<Item = (&Path, &str)> {
        self.texts
            .iter()
            .filter(move |(path, _)| path.extension().is_some_and(|found| found == extension))
            .map(|(path, text)| (path.as_path(), text.as_str()))
    }

    /// A tracked file, or a folder that holds one.
    fn holds(&self, path: &Path) -> bool {
        self.paths.iter().any(|known| known.starts_with(path))
    }
}

/// Each relative link of each Markdown file leads to a tracked file, and its `#fragment` to a heading there.
fn links(repository: &Repository) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in repository.ending("md") {
        for (line, target) in link_targets(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let linked = if file.is_empty() { path.to_owned() } else { normal(&path.with_file_name(file)) };
            if !repository.holds(&linked) {
                complaints.push(format!("{}:{line}: {target} leads nowhere", path.display()));
            } else if !fragment.is_empty() {
                let there = repository.texts.iter().find(|(candidate, _)| *candidate == linked);
                if !there.is_some_and(|(_, text)| headings(text).any(|heading| slug(heading) == fragment)) {
                    complaints.push(format!("{}:{line}: {target}: no such heading", path.display()));
                }
            }
        }
    }
    complaints
}

/// The lines outside of code blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        (!code && !fence).then_some((index + 1, line))
    })
}

fn link_targets(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(number, line)| {
        line.split("](")
            .skip(1)
            .filter_map(move |rest| rest.split_once(')').map(|(target, _)| (number, target)))
    })
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| line.trim_start_matches('#').trim())
}

/// How a heading is named in a link.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Resolves `.` and `..` without asking the file system.
fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                result.pop();
            }
            Component::Normal(name) => result.push(name),
            _ => {}
        }
    }
    result
}

fn readme_commands(repository: &Repository) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in ["README.md", ".ci/run"] {
        let text = repository.text(file).unwrap_or("");
        for command in README_COMMANDS {
            if !text.lines().any(|line| line.trim() == command) {
                complaints.push(format!("{file}: no line that is exactly `{command}`"));
            }
        }
    }
    complaints
}

/// Nothing tracked speaks of the machine it was written on.
fn machine_words(repository: &Repository) -> Vec<String> {
    // Written in halves, or this file would break its own rule.
    let folders =
        [["/ro", "ot/"], ["/wo", "rk/"], ["/ho", "me/"], ["/Us", "ers/"]].map(|halves| halves.concat());
    let hosts = [
        ["index.crates", ".io"],
        ["static.crates", ".io"],
        ["pypi", ".org"],
        ["deb.debian", ".org"],
        ["npmjs", ".org"],
        ["npmjs", ".com"],
    ]
    .map(|halves| halves.concat());
    let mut complaints = Vec::new();
    for (path, text) in &repository.texts {
        for (index, line) in text.lines().enumerate() {
            // Absolute only: a folder of that name below another one is nobody's machine.
            let absolute = |folder: &String| {
                line.match_indices(folder.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|before: char| {
                        before.is_alphanumeric() || matches!(before, '.' | '_' | '-' | '>' | '/' | '}' | '*')
                    })
                })
            };
            let word = folders
                .iter()
                .find(|folder| absolute(folder))
                .or_else(|| hosts.iter().find(|host| line.contains(host.as_str())));
            if let Some(word) = word {
                complaints.push(format!("{}:{}: {word}", path.display(), index + 1));
            }
        }
    }
    let settings = repository.text(".cargo/config.toml").unwrap_or("");
    if settings.lines().any(|line| line.starts_with("[source") || line.starts_with("[registr")) {
        complaints.push(".cargo/config.toml: where crates come from is each machine's own affair".to_owned());
    }
    complaints
}

/// The files that are the root of a crate: libraries, programs, examples, whole-system tests.
fn is_crate_root(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or("");
    match folder {
        "src" => matches!(name, "lib.rs" | "main.rs"),
        "bin" | "examples" | "benches" | "tests" => {
            !path.components().any(|part| part.as_os_str() == "src") || folder == "bin"
        }
        _ => name == "main.rs" || name == "build.rs",
    }
}

/// Fuzz targets are out of this: the entry point that libFuzzer calls is itself unsafe code in the compiler's eyes.
fn forbids_unsafe(repository: &Repository) -> Vec<String> {
    repository
        .ending("rs")
        .filter(|(path, _)| is_crate_root(path))
        .filter(|(_, text)| {
            let mut code =
                text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
            code.next() != Some("#![forbid(unsafe_code)]")
        })
        .map(|(path, _)| format!("{}: does not open with #![forbid(unsafe_code)]", path.display()))
        .collect()
}

fn file_headers(repository: &Repository) -> Vec<String> {
    repository
        .ending("rs")
        .filter(|(path, text)| {
            !opens_with_words(text) && path.file_name().is_some_and(|name| name != "tests.rs")
        })
        .map(|(path, _)| format!("{}: opens without a word on what it is", path.display()))
        .collect()
}

/// Attributes of the whole file may come first.
fn opens_with_words(text: &str) -> bool {
    text.lines()
        .find(|line| !line.is_empty() && !line.starts_with("#!["))
        .is_some_and(|line| line.starts_with("//!"))
}

fn sled_stays_home(repository: &Repository) -> Vec<String> {
    let mut complaints = Vec::new();
    // Its path, as code writes it; the name alone may stand in a setting or in prose.
    let path_of_sled = ["sl", "ed::"].concat();
    for (path, text) in repository.ending("rs").filter(|(path, _)| !path.starts_with("be/src/store")) {
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let named = code
                .match_indices(&path_of_sled)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            if named {
                complaints.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    for (path, text) in repository.ending("toml").filter(|(path, _)| path.ends_with("Cargo.toml")) {
        let allowed = path == Path::new("Cargo.toml") || path == Path::new("be/Cargo.toml");
        if !allowed && text.lines().any(|line| line.starts_with("sled")) {
            complaints.push(format!("{}: depends on sled", path.display()));
        }
    }
    complaints
}

/// Dependencies stand once, in the root manifest, each with what it is for; the crates only name them.
fn dependency_reasons(repository: &Repository) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in repository.ending("toml").filter(|(path, _)| path.ends_with("Cargo.toml")) {
        // The fuzz targets are a workspace of their own.
        let is_root = path == Path::new("Cargo.toml") || path.starts_with("common/fuzz");
        let mut section = "";
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('[') {
                section = line;
            }
            let is_dependency =
                section.ends_with("dependencies]") && line.contains('=') && !line.starts_with('#');
            let kept = if is_root { line.contains(" # ") } else { line.contains("workspace = true") };
            if is_dependency && !kept {
                let what = if is_root { "no reason beside" } else { "not of the workspace:" };
                complaints.push(format!("{}:{}: {what} {line}", path.display(), index + 1));
            }
        }
    }
    complaints
}

/// docs/requirements.md, docs/promises.md and docs/protocol.md name the test behind each row: a path in backquotes, then a function in backquotes.
fn named_tests(repository: &Repository) -> Vec<String> {
    const DOCUMENTS: [&str; 3] = ["docs/requirements.md", "docs/promises.md", "docs/protocol.md"];
    DOCUMENTS.iter().flat_map(|document| named_tests_of(repository, document)).collect()
}

fn named_tests_of(repository: &Repository, document: &str) -> Vec<String> {
    let Some(text) = repository.text(document) else { return vec![format!("{document} is missing")] };
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    quoted
        .windows(2)
        .filter(|pair| {
            Path::new(pair[0]).extension().is_some_and(|end| end == "rs") && !pair[1].contains('.')
        })
        .filter(|pair| {
            let source = repository.text(pair[0]).unwrap_or_default();
            !source.contains(&format!("fn {}(", pair[1]))
        })
        .map(|pair| format!("{document}: {} has no test {}", pair[0], pair[1]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(files: &[(&str, &str)]) -> Repository {
        Repository {
            paths: files.iter().map(|(path, _)| PathBuf::from(path)).collect(),
            texts: files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect(),
        }
    }

    #[track_caller]
    fn check(rule: fn(&Repository) -> Vec<String>, files: &[(&str, &str)], expected: &[&str]) {
        assert_eq!(rule(&repository(files)), expected);
    }

    #[test]
    fn a_link_must_lead_to_a_tracked_file_and_heading() {
        check(
            links,
            &[
                (
                    "docs/a.md",
                    "[root](../README.md) [gone](b.md)\n```\n[in code](c.md)\n```\n[part](../README.md#see-it-work) [no](../README.md#other)",
                ),
                ("README.md", "## See it work\n[folder](docs/) [web](https://example.com/x)"),
            ],
            &["docs/a.md:1: b.md leads nowhere", "docs/a.md:5: ../README.md#other: no such heading"],
        );
    }

    #[test]
    fn absolute_paths_are_found_and_relative_ones_are_not() {
        let text = ["see /ro", "ot/x\nnext/wo", "rk/y\n"].concat();
        check(machine_words, &[("a.md", &text)], &[&["a.md:1: /ro", "ot/"].concat()]);
    }

    #[test]
    fn a_crate_root_must_open_with_forbid() {
        check(
            forbids_unsafe,
            &[
                ("be/src/lib.rs", "//! The back end.\n\n#![forbid(unsafe_code)]\n"),
                ("fe/src/main.rs", "//! The front end.\nuse std::fs;\n"),
                ("fe/src/eas/ping.rs", "//! No root.\n"),
            ],
            &["fe/src/main.rs: does not open with #![forbid(unsafe_code)]"],
        );
    }

    #[test]
    fn sled_is_named_in_its_folder_only() {
        let code = ["let db = sl", "ed::open(path);"].concat();
        let complaint = ["be/src/dav/get.rs:1: let db = sl", "ed::open(path);"].concat();
        check(
            sled_stays_home,
            &[("be/src/store/sled_index.rs", &code), ("be/src/dav/get.rs", &code)],
            &[&complaint],
        );
    }

    #[test]
    fn dependencies_give_a_reason_once() {
        check(
            dependency_reasons,
            &[
                (
                    "Cargo.toml",
                    "[workspace.dependencies]\nbytes = \"1\" # buffers\nhttp = \"1\"\n[profile.dev]\ndebug = 1\n",
                ),
                ("be/Cargo.toml", "[dependencies]\nbytes = { workspace = true }\nhttp = \"1\"\n"),
            ],
            &[
                "Cargo.toml:3: no reason beside http = \"1\"",
                "be/Cargo.toml:3: not of the workspace: http = \"1\"",
            ],
        );
    }
}
