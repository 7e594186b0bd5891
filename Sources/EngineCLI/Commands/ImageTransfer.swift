import Contracts
import Glibc
import LinuxSystem
import Wire

/// What the commands that move images share.
enum ImageTransfer {
  /// Sends a request, shows its progress, and returns its reply.
  ///
  /// - Parameter isOwnCommand: what the engine could not reach is told as its answer; `run` has words of its own.
  static func follow<R: StreamRequest>(
    _ request: R, _ global: GlobalOptions, output: Int32, isQuiet: Bool, isOwnCommand: Bool = false
  ) throws -> R.Reply where R.Element == ImageProgress {
    var client = try Engine.connect(global)
    let id = try client.send(request)
    var view = ImageProgressView(output: output)
    while true {
      switch try client.receive() {
      case .reply(id, let body): return try body.decode(R.Reply.self)
      case .failure(id, let error): throw isOwnCommand ? Reports.answered(error) : error
      case .element(id, let body):
        if !isQuiet { view.show(try body.decode(ImageProgress.self)) }
      case .reply, .failure, .element: continue
      }
    }
  }

  /// Pulls an image as whoever the user is at its registry.
  @discardableResult
  static func pull(
    _ text: String, platform: String? = nil, allTags: Bool = false, _ global: GlobalOptions, output: Int32,
    isQuiet: Bool, isOwnCommand: Bool = false
  ) throws -> [PulledImage] {
    let reference = try ImageReference(parsing: text)
    let request = ImagePull(
      reference: text, platform: platform.flatMap { $0.isEmpty ? nil : $0 }, allTags: allTags,
      credentials: try Credentials.credentials(for: reference.registry))
    return try follow(request, global, output: output, isQuiet: isQuiet, isOwnCommand: isOwnCommand)
  }

  /// Where an archive goes: the file of `-o`, which appears when it is complete, or standard output.
  ///
  /// - Parameter takesDirectory: a path that is a directory is opened as one.
  static func output<Value>(
    _ path: String?, takesDirectory: Bool, _ body: (Descriptor) throws -> Value
  ) throws -> Value {
    guard let path, !path.isEmpty else {
      guard isatty(1) == 0 else {
        throw Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
      }
      return try body(try OwnStreams.duplicate(1))
    }
    if let status = Files.status(path), status.st_mode & S_IFMT != S_IFREG {
      if status.st_mode & S_IFMT == S_IFDIR {
        guard takesDirectory else { throw Failure("invalid output path: \"\(path)\" is a directory") }
        return try body(try open(path, O_RDONLY | O_DIRECTORY))
      }
      return try body(try open(path, O_WRONLY))
    }
    let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "./"
    guard Files.isDirectory(directory) else {
      throw Failure("invalid output path: directory \"\(directory)\" does not exist")
    }
    return try complete(path, in: directory, body)
  }

  /// A file that has a name only when it is complete, so that nothing is left of one that is interrupted; on file
  /// systems without such files (open(2), `O_TMPFILE`) one of another name until then.
  private static func complete<Value>(
    _ path: String, in directory: String, _ body: (Descriptor) throws -> Value
  ) throws -> Value {
    let temporary = "\(directory).engine_temp_\(getpid())"
    let nameless = try? open(directory, O_WRONLY | Files.nameless)
    do {
      let output = try nameless ?? open(temporary, O_WRONLY | O_CREAT | O_TRUNC)
      let value = try body(output)
      if nameless != nil {
        // A link never replaces a file, a renaming does.
        let own = "/proc/self/fd/\(output.number)"
        if linkat(AT_FDCWD, own, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 { return value }
        guard errno == EEXIST, linkat(AT_FDCWD, own, AT_FDCWD, temporary, AT_SYMLINK_FOLLOW) == 0 else {
          throw Failure("\(path): \(SystemCallError.text(errno).lowercasedFirst)")
        }
      }
      guard rename(temporary, path) == 0 else {
        throw Failure("\(path): \(SystemCallError.text(errno).lowercasedFirst)")
      }
      return value
    } catch {
      unlink(temporary)
      throw error
    }
  }

  private static func open(_ path: String, _ flags: Int32) throws -> Descriptor {
    do {
      return Descriptor(adopting: try Files.open(path, flags, mode: 0o600).release())
    } catch {
      throw Failure("open \(path): \(error.reason.lowercasedFirst)")
    }
  }
}
