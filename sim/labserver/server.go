package labserver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/wire/native"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
)

// Server is what the server knows. A copy is another server that knows the same;
// answers that are being read belong to the one that gave them.
type Server struct {
	Book *Book
	// Offer is the release on offer, -1: none. List is the newest key list. Cancel is
	// the sequence of a release that was taken back, 0: none.
	Offer, List int
	Cancel      uint32
	Revert      bool // an operator wants the device to go back

	Fetched [MaxReleases]int64 // bytes of streams and chunks that were read
	Heard   [MaxReleases]Heard // of each release
	Polls   int
	Derived bool // a derived stream was asked for

	nonce  uint64
	orders uint32
}

// Heard is what a device has reported of a release.
type Heard struct {
	Confirmed bool
	Ended     bool          // failed or went back, and that was its last word
	Reasons   [2]uint64     // every reason that was given, a bit each
	Last      device.Reason // and the last one
}

func (h *Heard) reason(r device.Reason) {
	h.Reasons[r/64] |= 1 << (r % 64)
	h.Last = r
}

// Said tells whether a reason was ever given.
func (h *Heard) Said(r device.Reason) bool { return h.Reasons[r/64]&(1<<(r%64)) != 0 }

// New is a server that has nothing on offer.
func New(b *Book) Server { return Server{Book: b, Offer: -1} }

// Total is how many bytes were fetched in all.
func (s *Server) Total() (n int64) {
	for _, f := range s.Fetched {
		n += f
	}
	return n
}

// Answer is an answer being read.
type Answer struct {
	head  device.Head
	body  []byte
	read  int
	count *int64 // of bytes that were read; nil: not counted
}

// Head is the answer's head.
func (a *Answer) Head() device.Head { return a.head }

// Close gives the answer up.
func (a *Answer) Close() error { return nil }

// Read reads on.
func (a *Answer) Read(p []byte) (n int, eof bool, err error) {
	n = copy(p, a.body[a.read:])
	a.read += n
	if a.count != nil {
		*a.count += int64(n)
	}
	return n, a.read == len(a.body), nil
}

func status(code uint16) *Answer { return &Answer{head: device.Head{Status: code}, body: []byte("{}")} }

func body(p []byte) *Answer { return &Answer{head: device.Head{Status: 200}, body: p} }

// Paths of the native wire (docs/format/exchange.md).
const (
	pollPath     = "/r1/poll"
	reportPath   = "/r1/report"
	listPath     = "/r1/keylists/"
	manifestPath = "/r1/manifests/"
	streamPath   = "/r1/streams/"
	sheetPath    = "/r1/sheets/"
)

// Do answers a request of either wire.
func (s *Server) Do(r device.Request) *Answer {
	path, query, _ := strings.Cut(string(r.Target), "?")
	if strings.HasPrefix(path, "/r1/") {
		return s.native(path, r)
	}
	return s.v1(path, query, r)
}

func (s *Server) native(path string, r device.Request) *Answer {
	switch {
	case path == pollPath:
		return s.poll(r.Body)
	case path == reportPath:
		return s.report(r.Body)
	case path == listPath+"latest":
		return body(s.Book.Lists[s.List].Envelope)
	case strings.HasPrefix(path, listPath):
		g, err := strconv.ParseUint(path[len(listPath):], 10, 32)
		if err == nil && uint32(g) <= s.Book.Lists[s.List].Generation && s.Book.generations[uint32(g)] != nil {
			return body(s.Book.generations[uint32(g)])
		}
	case strings.HasPrefix(path, manifestPath):
		for _, m := range s.Book.Releases {
			if path == m.manifests {
				return body(m.Envelope)
			}
		}
	case strings.HasPrefix(path, sheetPath):
		for _, m := range s.Book.Releases {
			if m.derived != nil && path == m.derived.sheets {
				return body(m.derived.sheet)
			}
		}
	case strings.HasPrefix(path, streamPath):
		for i, m := range s.Book.Releases {
			if m.derived != nil && path == m.derived.path {
				s.Derived = true
				return s.part(m.derived.stream, i, r)
			}
			if path != m.path {
				continue
			}
			if o := s.Offer; o >= 0 && s.Book.Releases[o].path == path {
				i = o // the same bytes were issued again
			}
			return s.part(m.Stream, i, r)
		}
	}
	return status(404)
}

// part is what was asked for of a stream of release i.
func (s *Server) part(stream []byte, i int, r device.Request) *Answer {
	a := body(stream)
	a.count = &s.Fetched[i]
	if r.Ranged && int(r.From) < len(stream) {
		to := min(int(r.To), len(stream)-1)
		a.head = device.Head{Status: 206, From: r.From, To: uint32(to), Total: uint32(len(stream))}
		a.body = a.body[r.From : to+1]
	}
	return a
}

// mac is the device's; its running hash is its own.
func (s *Server) mac() *native.SoftMAC {
	return &native.SoftMAC{Keys: &s.Book.native, Run: new(digest.SHA256)}
}

// comeBack in seconds, as the server asks for it.
const comeBack = 60

func (s *Server) poll(p []byte) *Answer {
	var m native.Poll
	if m.Decode(p, s.mac()) != 0 {
		return status(400)
	}
	s.Polls++
	list := s.Book.Lists[s.List]
	a := native.Answer{Device: []byte(Device), Random: m.Random, Nonce: m.Nonce, Highest: s.nonce, ComeBack: comeBack,
		ListVersion: list.Version, ListGeneration: list.Generation, Cancel: s.Cancel}
	if m.Nonce > s.nonce {
		s.nonce = m.Nonce
		if s.Revert {
			s.orders++
			a.Revert = s.orders
		}
		if s.Offer >= 0 {
			o := s.Book.Releases[s.Offer].build(m.Running, s.Book)
			a.HasOffer = true
			a.Offer = native.Offer{Sequence: o.Sequence, Manifest: o.envelope[:], ManifestLength: uint32(len(o.Envelope)),
				Stream: o.file[:], Chunk: uint32(o.chunk), FileLength: uint64(len(o.Stream))}
			if d := o.derived; d != nil && m.Derived.Takes(uint8(d.profile)) && int(m.Chunk) >= d.chunk {
				a.Offer.Sheet, a.Offer.SheetLength, a.Offer.Derived = d.envelope[:], uint32(len(d.sheet)), d.file[:]
			}
		}
	}
	out, err := a.Encode(make([]byte, native.MaxBody), s.mac())
	if err != 0 {
		return status(500)
	}
	return body(out)
}

// build is the release as a device can take it that runs from a slot.
func (r *Release) build(running uint8, b *Book) *Release {
	if r.slot < 0 || r.slot != int(running) {
		return r
	}
	for _, other := range b.Releases {
		if other.Sequence == r.Sequence && other.slot >= 0 && other.slot != r.slot {
			return other
		}
	}
	return r
}

func (s *Server) report(p []byte) *Answer {
	var m native.Report
	if m.Decode(p, s.mac()) != 0 || m.Nonce <= s.nonce {
		return status(400)
	}
	s.nonce = m.Nonce
	reason := device.Reason(m.Reason)
	for i, r := range s.Book.Releases {
		if r.Sequence == m.Sequence && (r.slot < 0 || string(r.Digest[:]) == string(m.Digest)) {
			s.hear(i, m.State == native.StateConfirmed,
				m.State == native.StateFailed || m.State == native.StateReverted, reason)
		}
	}
	if m.Sequence == 0 {
		s.heardOrder(reason) // no release is in it
	}
	a := native.Ack{Device: []byte(Device), Nonce: m.Nonce, Boot: m.Boot, Number: m.Number}
	out, err := a.Encode(make([]byte, native.MaxBody), s.mac())
	if err != 0 {
		return status(500)
	}
	return body(out)
}

// hear keeps a report.
func (s *Server) hear(i int, confirmed, ended bool, r device.Reason) {
	h := &s.Heard[i]
	h.reason(r)
	if confirmed {
		h.Confirmed, h.Ended = true, false
	}
	h.Ended = h.Ended || ended
	s.heardOrder(r)
}

// heardOrder: an order to go back ends when the device says what became of it.
func (s *Server) heardOrder(r device.Reason) {
	if r == device.ReasonOrdered || r == device.ReasonNoWayBack {
		s.Revert = false
	}
}

func (s *Server) v1(path, query string, r device.Request) *Answer {
	m := hmac.New(sha256.New, s.Book.Key)
	m.Write(r.Target)
	m.Write(r.Nonce)
	m.Write(r.Timestamp)
	var mac [2 * sha256.Size]byte
	hex.Encode(mac[:], m.Sum(nil))
	nonce, err := strconv.ParseUint(string(r.Nonce), 10, 64)
	if err != nil || nonce <= s.nonce || string(mac[:]) != string(r.MAC) {
		return status(401)
	}
	s.nonce = nonce
	switch path {
	case v1.RollbackPath:
		return body(fmt.Appendf(nil, `{"rollback_required":%v}`, s.Revert))
	case v1.ManifestPath:
		s.Polls++
		if s.Offer >= 0 {
			return body([]byte(s.Book.Releases[s.Offer].manifest))
		}
		return body([]byte(`{}`))
	case v1.ChunkPath:
		n, err := strconv.Atoi(strings.TrimPrefix(query, "chunk_number="))
		if err != nil || s.Offer < 0 || n >= len(s.Book.Releases[s.Offer].chunks) {
			break
		}
		o := s.Book.Releases[s.Offer]
		s.Fetched[s.Offer] += int64(min(o.chunk, len(o.Image)-n*o.chunk))
		return body([]byte(o.chunks[n]))
	case v1.StatusPath:
		return s.v1Report(r.Body)
	}
	return status(404)
}

// v1Report keeps a report; v1 says reasons in words, and names a release by its
// version, where the device still has that.
func (s *Server) v1Report(p []byte) *Answer {
	var m struct {
		Status struct {
			Boot     string `json:"boot_status"`
			Version  string `json:"new_version"`
			Error    string `json:"error"`
			Rollback bool   `json:"rollback"`
		} `json:"fota_status"`
	}
	if json.Unmarshal(p, &m) != nil {
		return status(400)
	}
	at := s.Offer
	for i, r := range s.Book.Releases {
		if r.Name == m.Status.Version {
			at = i
		}
	}
	reason := device.ReasonNone
	for r := device.Reason(1); m.Status.Error != "" && r < 128; r++ {
		if r.String() == m.Status.Error {
			reason = r
			break
		}
	}
	if at >= 0 {
		ok := m.Status.Boot == "success"
		s.hear(at, ok, !ok && m.Status.Error != "" && reason != device.ReasonUnproven, reason)
	} else {
		s.heardOrder(reason)
	}
	return body([]byte(`{"status":"success"}`))
}
