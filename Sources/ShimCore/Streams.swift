import CLinux
import Glibc
import LinuxSystem
import ShimProtocol

/// A client's descriptors as they arrived beside a message; closed when nobody takes them.
struct ClientDescriptors {
  var input: Int32 = -1
  var output: Int32 = -1
  var error: Int32 = -1
  var client: Int32 = -1

  init() {}

  /// Takes from the front of `descriptors` what the plan says is there.
  init(_ plan: StreamPlan, _ descriptors: inout ArraySlice<Int32>) {
    if plan.hasInput { input = descriptors.popFirst() ?? -1 }
    if plan.hasOutput { output = descriptors.popFirst() ?? -1 }
    if plan.hasError { error = descriptors.popFirst() ?? -1 }
    if plan.hasClient { client = descriptors.popFirst() ?? -1 }
  }
}

/// The streams of one process, as the shim holds them: pipes or a terminal on its side, clients and the log on the other.
final class Streams {
  private let loop: EventLoop
  private let log: LogWriter?
  private let isTerminal: Bool
  private var pumps: [OutputPump] = []
  private var input: InputDestination?
  private var clients: [Attachment] = []
  private(set) var terminal: Int32 = -1
  /// Held open, so that the terminal does not hang up while the process has no descriptor of it open.
  private var terminalSlave: Int32 = -1
  /// Clients that came before the process had made its terminal.
  private var waiting: [(StreamPlan, ClientDescriptors)] = []
  /// Called with the client's number when it lets go by its keys or by going away.
  var onDetach: (UInt32) -> Void = { _ in }
  /// Called when the last output was read after `finish`.
  var onDone: () -> Void = {}

  init(terminal: Bool, log: LogWriter?, loop: EventLoop) {
    isTerminal = terminal
    self.log = log
    self.loop = loop
  }

  /// Makes the process's own ends of the streams.
  ///
  /// - Returns: what becomes 0, 1 and 2 in the process, or -1 for all where a terminal will. The caller closes them.
  func makeEnds(_ plan: StreamPlan) throws(SystemCallError) -> [Int32] {
    if isTerminal { return [-1, -1, -1] }
    var ends: [Int32] = []
    if plan.hasInput || plan.keepsInputOpen {
      var pipe = try pipePair()
      ends.append(pipe.takeFirst())
      let writing = pipe.takeSecond()
      _ = linux_fcntl(writing, F_SETFL, Int(O_NONBLOCK))
      input = InputDestination(adopting: writing, loop: loop)
    } else {
      ends.append(try Files.open("/dev/null", O_RDONLY).release())
    }
    for stream in 1...2 {
      var pipe = try pipePair()
      pumps.append(makePump(pipe.takeFirst(), stream))
      ends.append(pipe.takeSecond())
    }
    return ends
  }

  /// Takes the terminal that the process made.
  func takeTerminal(master: Int32, slave: Int32) {
    guard terminal < 0 else {
      Glibc.close(master)
      Glibc.close(slave)
      return
    }
    terminal = master
    terminalSlave = slave
    let writing = linux_fcntl(master, F_DUPFD_CLOEXEC, 3)
    pumps.append(makePump(master, 1))
    if writing >= 0 { input = InputDestination(adopting: writing, loop: loop) }
    let clients = waiting
    waiting = []
    for (plan, descriptors) in clients { attach(plan, descriptors, isFirst: true) }
  }

  private func makePump(_ source: Int32, _ stream: Int) -> OutputPump {
    let pump = OutputPump(adopting: source, stream: stream, log: log, loop: loop)
    pump.onDone = { [unowned self] in if self.isDone && self.isDelivered { self.onDone() } }
    return pump
  }

  /// Everything was read.
  var isDone: Bool { pumps.allSatisfy(\.isDone) }
  /// Every client has everything.
  var isDelivered: Bool { pumps.allSatisfy(\.isDelivered) }

  /// Connects a client.
  ///
  /// - Parameter isFirst: The one the process was started with: the end of its input is the end of the process's.
  func attach(_ plan: StreamPlan, _ descriptors: ClientDescriptors, isFirst: Bool) {
    if isTerminal && terminal < 0 {
      waiting.append((plan, descriptors))
      return
    }
    if isTerminal && plan.rows > 0 && plan.columns > 0 { setSize(terminal, plan.rows, plan.columns) }
    let attachment = Attachment(loop: loop)
    if descriptors.output >= 0 { attachment.add(descriptors.output, to: pumps.first) }
    if descriptors.error >= 0 {
      if isTerminal { Glibc.close(descriptors.error) } else { attachment.add(descriptors.error, to: pumps.last) }
    }
    if descriptors.input >= 0 {
      if let input {
        let closes = !isTerminal && (isFirst || !plan.keepsInputOpen)
        let pump = InputPump(
          adopting: descriptors.input, to: input, detachKeys: isTerminal ? plan.detachKeys : [], closesAtEnd: closes,
          loop: loop)
        pump.onDetach = { [unowned self, unowned attachment] in self.letGo(attachment, plan.client) }
        attachment.input = pump
      } else {
        Glibc.close(descriptors.input)
      }
    }
    if descriptors.client >= 0 {
      attachment.watchClient(descriptors.client) { [unowned self, unowned attachment] in
        // The end of the client is the end of its input.
        let closes = !self.isTerminal && (isFirst || !plan.keepsInputOpen)
        if closes && descriptors.input >= 0 { self.input?.close() }
        self.letGo(attachment, plan.client)
      }
    }
    clients.append(attachment)
  }

  private func letGo(_ attachment: Attachment, _ client: UInt32) {
    attachment.close()
    // Freed when the loop has returned from the attachment's own handler.
    let index = clients.firstIndex { $0 === attachment }
    if let index { retired.append(clients.remove(at: index)) }
    onDetach(client)
    loop.afterwards { [weak self] in self?.retired = [] }
  }

  private var retired: [Attachment] = []

  func resize(rows: UInt16, columns: UInt16) {
    if terminal >= 0 { setSize(terminal, rows, columns) }
  }

  /// The process has ended: reads what is left, then `onDone` is called.
  func finish() {
    for client in clients { client.forgetClient() }
    for pump in pumps { pump.finish() }
    if isDone && isDelivered { onDone() }
  }

  func close() {
    for client in clients { client.close() }
    for (_, descriptors) in waiting {
      for number in [descriptors.input, descriptors.output, descriptors.error, descriptors.client] where number >= 0 {
        Glibc.close(number)
      }
    }
    waiting = []
    input?.close()
    if terminalSlave >= 0 { Glibc.close(terminalSlave) }
    terminalSlave = -1
    terminal = -1
  }
}

/// One client that is connected.
private final class Attachment {
  private let loop: EventLoop
  private var sinks: [Sink] = []
  private var client: Int32 = -1
  var input: InputPump?

  init(loop: EventLoop) { self.loop = loop }

  func add(_ descriptor: Int32, to pump: OutputPump?) {
    guard let pump else {
      Glibc.close(descriptor)
      return
    }
    let sink = Sink(adopting: descriptor, loop: loop)
    sinks.append(sink)
    pump.add(sink)
  }

  func watchClient(_ pidfd: Int32, _ isGone: @escaping () -> Void) {
    client = pidfd
    loop.watch(pidfd, EventLoop.readable) { _ in isGone() }
  }

  /// After the process's end the client's descriptors get the rest, whether the client waits for it or not.
  func forgetClient() {
    guard client >= 0 else { return }
    loop.forget(client)
    Glibc.close(client)
    client = -1
  }

  func close() {
    for sink in sinks { sink.close() }
    input?.stop()
    forgetClient()
  }
}
