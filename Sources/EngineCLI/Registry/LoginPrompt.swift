import Contracts
import Glibc
import LinuxSystem

/// Asks a person for what a login lacks.
enum LoginPrompt {
  /// The password that a pipe brings, without its line break.
  static func passwordFromInput() throws -> String {
    do {
      return stripped(String(decoding: try Files.readAll(0, subject: "stdin", limit: 1 << 20), as: UTF8.self))
    } catch {
      throw Failure("the password cannot be read from standard input: \(error)")
    }
  }

  static func stripped(_ text: String) -> String {
    var bytes = Array(text.utf8)
    if bytes.last == 0x0A { bytes.removeLast() }
    if bytes.last == 0x0D { bytes.removeLast() }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// - Parameter known: the name of the last login, taken for an empty answer.
  static func complete(
    username: String, password: String, isHub: Bool, known: String
  ) throws -> RegistryCredentials {
    if !username.isEmpty, !password.isEmpty { return RegistryCredentials(username: username, password: password) }
    guard isatty(0) != 0 else { throw Failure("Error: Cannot perform an interactive login from a non TTY device") }
    var username = username
    if username.isEmpty {
      if isHub {
        Console.line(
          "Log in with your Docker ID or email address to push and pull images from Docker Hub. If you don't have a "
            + "Docker ID, head over to https://hub.docker.com/ to create one.")
      }
      Console.out(known.isEmpty ? "Username: " : "Username (\(known)): ")
      username = (readLine() ?? "").trimmedOfSpaces
      if username.isEmpty { username = known }
      guard !username.isEmpty else { throw Failure("Error: Non-null Username Required") }
    }
    var password = password
    if password.isEmpty {
      password = try secret("Password: ")
      guard !password.isEmpty else { throw Failure("Error: Password Required") }
    }
    return RegistryCredentials(username: username, password: password)
  }

  /// A line that the terminal does not show. The terminal's keys are read here one by one, so that it is given back as it
  /// was also after Ctrl-C.
  private static func secret(_ prompt: String) throws -> String {
    guard let terminal = RawTerminal(0) else { throw Failure("Error: Password Required") }
    Console.out(prompt)
    let typed = line()
    _ = consume terminal
    Console.line("")
    guard let typed else { throw Failure("", status: 130) }
    return typed
  }

  /// - Returns: nil for Ctrl-C.
  private static func line() -> String? {
    var bytes: [UInt8] = []
    var byte: UInt8 = 0
    while read(0, &byte, 1) == 1 {
      switch byte {
      case 0x0D, 0x0A, 0x04: return String(decoding: bytes, as: UTF8.self)
      case 0x03: return nil
      case 0x15: bytes = []
      case 0x7F, 0x08:
        while let last = bytes.popLast(), last & 0xC0 == 0x80 {}
      default: bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}

extension String {
  fileprivate var trimmedOfSpaces: String {
    String(drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed())
  }
}
