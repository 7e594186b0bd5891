import Contracts
import Glibc
import LinuxSystem
import Testing

@testable import Wire

/// A client whose engine goes away: what is sent again, how often, and what is not.
@Suite("Client", .timeLimit(.minutes(1)))
struct ClientTests {
  private struct Change: Request {
    typealias Reply = Int
    static let name = "test.change"
  }

  private struct Question: Request {
    typealias Reply = Int
    static let name = "test.question"
    static let isRepeatable = true
  }

  /// The engines that a client meets, one after the other: each has said beforehand all that it will say, and is gone.
  private final class Engines {
    private(set) var attempts = 0
    private let answers: [[OutgoingFrame]]
    private var listening: [Int32] = []

    init(_ answers: [[OutgoingFrame]]) { self.answers = answers }

    deinit { for number in listening { close(number) } }

    func connect(_ attempt: Int) throws(EngineError) -> OwnedDescriptor {
      #expect(attempt == attempts)
      guard attempt < answers.count else { throw EngineError(.unavailable, "enough") }
      attempts += 1
      do {
        let (mine, yours) = try UnixSocket.pair().release()
        for frame in answers[attempt] { try frame.sendAll(to: mine) }
        // The one that answers at last stays; the others are gone when they have said what they had to say.
        if attempt == answers.count - 1 { listening.append(mine) } else { close(mine) }
        return OwnedDescriptor(adopting: yours)
      } catch {
        throw EngineError(wrapping: error)
      }
    }

    /// What the last engine was asked, by name.
    func asked() throws -> [String] {
      var reader = FrameReader()
      var names: [String] = []
      guard let number = listening.last else { return [] }
      while case .bytes = try reader.receive(from: number, flags: Int32(MSG_DONTWAIT)) {
        while let frame = try reader.next() {
          switch try RemoteMessage(parsing: frame) {
          case .request(let request): names.append(request.method)
          case .notification(let method, _): names.append(method)
          case .result, .failure: break
          }
        }
      }
      return names
    }
  }

  private static let hello = Result { try OutgoingMessage.hello(Hello(agent: "test")) }

  @Test func anEngineThatDiesBeforeItGreetsIsReplacedAndAskedAgain() throws {
    let engines = Engines([[], [], [try Self.hello.get(), try OutgoingMessage.result(1, 7)]])
    var client = try Client(connecting: engines.connect)
    #expect(try client.request(Change()) == 7)
    #expect(engines.attempts == 3)
    #expect(try engines.asked() == ["hello", "test.change"])
  }

  @Test func whatMayHaveBeenDoneIsNotRepeated() throws {
    let engines = Engines([[try Self.hello.get()], [try Self.hello.get(), try OutgoingMessage.result(1, 7)]])
    var client = try Client(connecting: engines.connect)
    #expect { try client.request(Change()) } throws: { ($0 as? EngineError)?.code == .unavailable }
    #expect(engines.attempts == 1)
  }

  @Test func aQuestionIsRepeatedOnce() throws {
    let greeting = try Self.hello.get()
    let engines = Engines([[greeting], [greeting, try OutgoingMessage.result(2, 7)]])
    var client = try Client(connecting: engines.connect)
    #expect(try client.request(Question()) == 7)
    #expect(try engines.asked() == ["hello", "test.question"])

    let restless = Engines([[greeting], [greeting], [greeting, try OutgoingMessage.result(3, 7)]])
    var other = try Client(connecting: restless.connect)
    #expect { try other.request(Question()) } throws: { ($0 as? EngineError)?.code == .unavailable }
    #expect(restless.attempts == 2)
  }

  @Test func whoeverConnectsDecidesWhenItIsEnough() throws {
    let engines = Engines([])
    #expect { _ = try Client(connecting: engines.connect) } throws: { ($0 as? EngineError)?.message == "enough" }
  }
}
