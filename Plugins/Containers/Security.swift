import Contracts

/// `--security-opt`, read.
struct SecurityOptions: Equatable {
  var noNewPrivileges = false
  var seccomp: RuntimeSpecification.SeccompPolicy = .standard
  /// `systempaths=unconfined`: nothing masked, nothing read-only.
  var unmasksPaths = false

  /// AppArmor and SELinux labels are accepted and have no effect.
  ///
  /// - Throws: `invalidArgument` that quotes an unknown option.
  init(_ options: [String]) throws(EngineError) {
    for option in options {
      let separator = option.firstIndex { $0 == "=" || $0 == ":" }
      let key = separator.map { String(option[..<$0]) } ?? option
      let value = separator.map { String(option[option.index(after: $0)...]) }
      switch (key, value) {
      case ("no-new-privileges", nil), ("no-new-privileges", "true"): noNewPrivileges = true
      case ("no-new-privileges", "false"): noNewPrivileges = false
      case ("seccomp", "unconfined"): seccomp = .unconfined
      case ("seccomp", "builtin"): seccomp = .standard
      case ("seccomp", let profile?) where profile.trimmingWhitespace().hasPrefix("{"): seccomp = .profile(profile)
      case ("systempaths", "unconfined"): unmasksPaths = true
      case ("apparmor", _?), ("label", _?): break
      default: throw EngineError(.invalidArgument, "invalid --security-opt: \"\(option)\"")
      }
    }
  }
}

/// `--sysctl`: only what belongs to a namespace of the container's own.
enum SystemControls {
  private static let ipc: Set<String> = [
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
    "kernel.shmmni", "kernel.shm_rmid_forced",
  ]

  /// - Throws: `invalidArgument` that names what is not namespaced, or whose namespace the container shares.
  static func validate(_ user: ContainerConfiguration) throws(EngineError) {
    for name in user.systemControls.keys.sorted() {
      func refuse(_ why: String) -> EngineError {
        EngineError(.invalidArgument, "invalid sysctl \"\(name)\": \(why)")
      }
      guard !name.contains("/"), !name.contains("..") else { throw refuse("write it with single dots") }
      if ipc.contains(name) || name.hasPrefix("fs.mqueue.") {
        guard [.own, .shareable, .none].contains(user.ipcMode) else {
          throw refuse("not allowed in a shared ipc namespace")
        }
      } else if name.hasPrefix("net.") {
        switch NetworkMode(user) {
        case .attached, .none: break
        case .host: throw refuse("not allowed in host network namespace")
        case .container: throw refuse("not allowed in another container's network namespace")
        }
      } else if name == "kernel.domainname" {
        guard user.utsMode == .own else { throw refuse("not allowed in host UTS namespace") }
      } else {
        throw refuse("it is not in a separate kernel namespace")
      }
    }
  }
}
