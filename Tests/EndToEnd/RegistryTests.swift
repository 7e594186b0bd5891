import Foundation
import Testing

extension EndToEnd {
  /// `login`, `logout` and `search` against Debian's docker-registry behind basic authentication.
  @Suite(.enabled(if: access("/usr/bin/docker-registry", X_OK) == 0, "docker-registry is not installed"))
  struct Registries {
    let fixture: Fixture
    private let environment: [String: String]
    private let process: String

    init() throws {
      fixture = try Fixture()
      let directory = fixture.directory
      try FileManager.default.createDirectory(atPath: "\(directory)/bin", withIntermediateDirectories: true)
      environment = [
        "DOCKER_CONFIG": "\(directory)/docker", "PATH": "\(directory)/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      ]
      // bcrypt(3) of "secret"
      try "user:$2b$05$IM61ah5qi/WcLihnhc4MRu6K/Zysd8PPBRdKQz84nX1dbuC2oPq.6\n".write(
        toFile: "\(directory)/htpasswd", atomically: true, encoding: .utf8)
      try """
      version: 0.1
      storage: {filesystem: {rootdirectory: "\(directory)/data"}}
      http: {addr: "127.0.0.1:5000", secret: test}
      auth: {htpasswd: {realm: test, path: "\(directory)/htpasswd"}}
      """.write(toFile: "\(directory)/config.yml", atomically: true, encoding: .utf8)
      // Whoever waits for the shell waits for everybody who has its descriptors, so the registry gets none of them.
      let script = """
        for number in $(ls /proc/self/fd); do [ $number -gt 2 ] && eval "exec $number>&-"; done
        docker-registry serve \(directory)/config.yml > \(directory)/log 2>&1 < /dev/null & echo $!
        """
      process = fixture.host(["bash", "-c", script]).text
      let fixture = fixture
      Fixture.eventually { fixture.fetch("http://127.0.0.1:5000/").status == 0 }
    }

    private func end() {
      _ = fixture.host(["kill", process])
      fixture.end()
    }

    private func engine(_ arguments: String..., input: String? = nil) -> Outcome {
      fixture.engine(arguments, environment: environment, input: input)
    }

    private var file: String {
      (try? String(contentsOfFile: "\(fixture.directory)/docker/config.json", encoding: .utf8)) ?? ""
    }

    @Test func logsInAndOut() throws {
      defer { end() }
      let wrong = engine("login", "-u", "user", "--password-stdin", "127.0.0.1:5000", input: "wrong\n")
      #expect(wrong.status == 1 && wrong.errors.contains("login attempt to 127.0.0.1:5000 failed"), "\(wrong)")
      #expect(wrong.errors.contains("401 Unauthorized") && file.isEmpty, "\(wrong)")

      let right = engine("login", "-u", "user", "--password-stdin", "127.0.0.1:5000", input: "secret\n")
      #expect(right.status == 0 && right.output == "Login Succeeded\n", "\(right)")
      #expect(right.errors.contains("WARNING! Your credentials are stored unencrypted in '"), "\(right)")
      #expect(file.contains("\"auth\": \"dXNlcjpzZWNyZXQ=\""))

      let again = engine("login", "127.0.0.1:5000")
      #expect(again.output.hasPrefix("Authenticating with existing credentials... [Username: user]\n"), "\(again)")
      #expect(again.status == 0 && again.output.hasSuffix("Login Succeeded\n"), "\(again)")
      #expect(engine("search", "127.0.0.1:5000/anything").status == 0)

      let out = engine("logout", "127.0.0.1:5000")
      #expect(out.status == 0 && out.output == "Removing login credentials for 127.0.0.1:5000\n", "\(out)")
      #expect(!file.contains("dXNlcjpzZWNyZXQ="))
      let denied = engine("search", "127.0.0.1:5000/anything")
      #expect(denied.status == 1 && denied.errors.contains("may require 'engine login'"), "\(denied)")
      let prompt = engine("login", "127.0.0.1:5000", input: "")
      #expect(prompt.errors.contains("Cannot perform an interactive login from a non TTY device"), "\(prompt)")
    }

    @Test func aHelperKeepsTheSecret() throws {
      defer { end() }
      let store = "\(fixture.directory)/secret"
      let helper = "\(fixture.directory)/bin/docker-credential-test"
      try """
      #!/bin/sh
      case $1 in
      store) cat > \(store) ;;
      get) [ -e \(store) ] && cat \(store) || { echo 'credentials not found in native keychain'; exit 1; } ;;
      erase) rm -f \(store) ;;
      esac
      """.write(toFile: helper, atomically: true, encoding: .utf8)
      chmod(helper, 0o755)
      try FileManager.default.createDirectory(
        atPath: "\(fixture.directory)/docker", withIntermediateDirectories: true)
      try #"{"credsStore":"test"}"#.write(
        toFile: "\(fixture.directory)/docker/config.json", atomically: true, encoding: .utf8)

      let right = engine("login", "-u", "user", "-p", "secret", "127.0.0.1:5000")
      #expect(right.status == 0 && !right.errors.contains("unencrypted"), "\(right)")
      #expect(right.errors.contains("WARNING! Using --password via the CLI is insecure. Use --password-stdin."))
      #expect(file.contains("\"127.0.0.1:5000\": {}") && !file.contains("dXNlcjpzZWNyZXQ="), "\(file)")
      #expect(try String(contentsOfFile: store, encoding: .utf8).contains("\"Secret\":\"secret\""))
      #expect(engine("search", "127.0.0.1:5000/x").status == 0)
      #expect(engine("logout", "127.0.0.1:5000").status == 0)
      #expect(!FileManager.default.fileExists(atPath: store))
      #expect(engine("search", "127.0.0.1:5000/x").status == 1)

      // A helper that is not there is told, and nobody is who asks.
      unlink(helper)
      let gone = engine("search", "127.0.0.1:5000/x")
      #expect(gone.status == 1 && gone.errors.contains("executable file not found in $PATH"), "\(gone)")
    }
  }
}
