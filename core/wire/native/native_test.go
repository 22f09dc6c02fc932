package native

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"testing"
	"unsafe"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/internal/chiptest"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// vectors is testdata/vectors/native/exchange.json.
type vectors struct {
	Device struct{ Secret, Request, Answer string }
	Token  struct {
		Secret, Request, Answer, Device string
		DeviceNonce                     string `json:"device_nonce"`
		ServerNonce                     string `json:"server_nonce"`
		DeviceSecret                    string `json:"device_secret"`
	}
	Messages []struct{ Name, Label, Body string }
}

func load(t testing.TB) *vectors {
	t.Helper()
	v := new(vectors)
	if err := json.Unmarshal(chiptest.Read(t, "../../../testdata/vectors/native/exchange.json"), v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *vectors) body(t testing.TB, name string) []byte {
	t.Helper()
	for _, m := range v.Messages {
		if m.Name == name {
			return unhex(t, m.Body)
		}
	}
	t.Fatalf("no vector %s", name)
	return nil
}

// macs are those of the device's secret and of the token.
func macs(t testing.TB) (device, token *SoftMAC) {
	t.Helper()
	v := load(t)
	run := new(digest.SHA256)
	device, token = &SoftMAC{Keys: new(Keys), Run: run}, &SoftMAC{Keys: new(Keys), Run: run}
	device.Keys.Derive((*[32]byte)(unhex(t, v.Device.Secret)), run)
	token.Keys.DeriveToken((*[32]byte)(unhex(t, v.Token.Secret)), run)
	return device, token
}

// message is what the six have in common.
type message interface {
	Encode(buf []byte, mac MAC) ([]byte, Error)
}

// decode reads a body of any kind, as an answer to what it itself says.
func decode(kind Message, body []byte, mac MAC) (message, Error) {
	switch kind {
	case MessagePoll:
		m := new(Poll)
		return m, m.Decode(body, mac)
	case MessageAnswer:
		m := new(Answer)
		device, nonce, random := told(body, 1, 11)
		err := m.Decode(body, mac, device, nonce, random)
		return m, err
	case MessageReport:
		m := new(Report)
		return m, m.Decode(body, mac)
	case MessageAck:
		m := new(Ack)
		device, nonce, _ := told(body, 1, 0)
		_, boot, _ := told(body, 2, 0)
		_, number, _ := told(body, 3, 0)
		return m, m.Decode(body, mac, device, nonce, uint32(boot), uint32(number))
	case MessageEnrol:
		m := new(Enrol)
		return m, m.Decode(body, mac)
	}
	m := new(Enrolled)
	device, _, nonce := told(body, -1, 1)
	var n [NonceSize]byte
	copy(n[:], nonce)
	return m, m.Decode(body, mac, device, &n)
}

func sum(key, label string, p []byte, t testing.TB) []byte {
	h := hmac.New(sha256.New, unhex(t, key))
	h.Write([]byte(label))
	h.Write([]byte{0})
	h.Write(p)
	return h.Sum(nil)
}

func digestOf(s string) []byte { d := sha256.Sum256([]byte(s)); return d[:] }

func span(from, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(from + i)
	}
	return p
}

// samples are the vectors' messages, field by field.
func samples() map[string]message {
	name := []byte("esp32-0001")
	x64, ff32 := bytes.Repeat([]byte("x"), 64), bytes.Repeat([]byte{0xFF}, 32)
	const m32, m64 = 1<<32 - 1, 1<<64 - 1
	full := &Poll{Device: name, Key: 3, Nonce: m64, Random: span(1, 8), Boot: 7, Digest: digestOf("running"), Version: []byte("1.4.0-größe"),
		Epoch: 1, Sequence: 41, SecurityVersion: 2, ListVersion: 9, ListGeneration: 1, Profile: ProfileSigned, Hardware: []byte("board-a\x00\xff"),
		HasChip: true, Chip: 9, SlotCount: 2, Running: 1, Envelope: 1280, Chunk: 4096, InProgress: 42, Progress: 524288,
		Security: SecureBoot | Rollback, HasSecureVersion: true}
	full.Slots[0], full.Slots[1] = 1572864, 1572864
	healthy := &Poll{Device: []byte("d"), Profile: ProfileMACOnly, Hardware: []byte("h"), SlotCount: 1, Running: Factory, Envelope: 1280, Chunk: 256,
		Health: (&Health{FreeRAM: 120_000, Reset: 4, Battery: 80, Signal: 67}).Encode(make([]byte, MaxHealth))}
	healthy.Slots[0] = 65536
	least := &Poll{Device: []byte("d"), Profile: ProfileMACOnly, Hardware: []byte("h"), SlotCount: 1, Running: Factory, Envelope: 1280, Chunk: 256}
	least.Slots[0] = 65536
	slots := &Poll{Device: x64, Key: 255, Nonce: 1 << 32, Boot: m32, Profile: ProfileSigned, Hardware: bytes.Repeat([]byte{0x55}, 32),
		SlotCount: 16, Running: 15, Envelope: 16384, Chunk: 16384}
	for i := range slots.Slots {
		slots.Slots[i] = m32 - uint32(i)
	}
	derived := &Poll{Device: []byte("d"), Profile: ProfileMACOnly, Hardware: []byte("h"), SlotCount: 1, Running: Factory, Envelope: 2096, Chunk: 2048,
		Derived: Derived{Version: 1, Profiles: 1<<1 | 1<<2, RAM: 15360}}
	derived.Slots[0] = 65536
	return map[string]message{
		"poll-derived": derived,
		"answer-derived": &Answer{Device: []byte("d"), Nonce: 5, Highest: 4, ComeBack: 60, ListVersion: 1, ListGeneration: 1, HasOffer: true,
			Offer: Offer{Epoch: 1, Sequence: 42, Manifest: digestOf("manifest"), ManifestLength: 412, Stream: digestOf("stream"), Chunk: 1024,
				FileLength: 1048576 + 32*1023, Sheet: digestOf("sheet"), SheetLength: 290, Derived: digestOf("patch")}},
		"poll-full": full, "poll-least": least, "poll-16-slots": slots, "poll-health": healthy,
		"answer-offer": &Answer{Device: name, Nonce: m64, Highest: m64, ComeBack: 3600, ListVersion: 9, ListGeneration: 1, Time: 1790000000, HasOffer: true,
			Random: span(1, 8), Offer: Offer{Epoch: 1, Sequence: 42, Manifest: digestOf("manifest"), ManifestLength: 412,
				Stream: digestOf("stream"), Chunk: 4096, FileLength: 1048576 + 32*255}},
		"answer-nothing": &Answer{Device: []byte("d"), Highest: 17, ComeBack: 60},
		"answer-orders":  &Answer{Device: name, Nonce: 24, Highest: 255, ComeBack: 86400, ListVersion: 65536, ListGeneration: 2, Cancel: 42, Revert: 1, Retry: digestOf("bad")},
		"answer-most": &Answer{Device: x64, Nonce: 1 << 63, Highest: 1 << 63, ComeBack: m32, ListVersion: m32, ListGeneration: m32, Time: m32, HasOffer: true,
			Offer: Offer{Epoch: m32, Sequence: m32, Manifest: ff32, ManifestLength: 1280, Stream: ff32,
				Chunk: 16384, FileLength: 1<<32 + 1000}, Cancel: m32, Revert: m32, Retry: ff32, Random: ff32[:8]},
		"report-failed": &Report{Device: name, Key: 3, Nonce: 1000, Boot: 7, Number: 12, Epoch: 1, Sequence: 42, Digest: digestOf("image"),
			State: StateFailed, Reason: 14, Bytes: 524288},
		"report-confirmed": &Report{Device: name, Nonce: 1001, Boot: 8, Number: 1, Digest: digestOf("image"), State: StateConfirmed, Bytes: 1048576},
		"ack":              &Ack{Device: name, Nonce: 1000, Boot: 7, Number: 12},
		"enrol":            &Enrol{Token: []byte("batch-7"), Device: name, Nonce: span(0x80, 16), Hardware: []byte("board-a")},
		"enrolled-taken":   &Enrolled{Device: name, Nonce: span(0x80, 16), ServerNonce: span(0x90, 16), Status: EnrolTaken},
		"enrolled-refused": &Enrolled{Device: name, Nonce: span(0x80, 16), ServerNonce: span(0x90, 16), Status: EnrolRefused},
	}
}

func kindOf(m message) Message {
	switch m.(type) {
	case *Poll:
		return MessagePoll
	case *Answer:
		return MessageAnswer
	case *Report:
		return MessageReport
	case *Ack:
		return MessageAck
	case *Enrol:
		return MessageEnrol
	}
	return MessageEnrolled
}

// macOf is the MAC under which a kind travels.
func macOf(t testing.TB, kind Message) *SoftMAC {
	device, token := macs(t)
	if kind >= MessageEnrol {
		return token
	}
	return device
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		name       string
		size, most uintptr
	}{
		{"Keys", unsafe.Sizeof(Keys{}), 128},
		{"SoftMAC", unsafe.Sizeof(SoftMAC{}), 24},
		{"Poll", unsafe.Sizeof(Poll{}), 280},
		{"Answer", unsafe.Sizeof(Answer{}), 256},
		{"Report", unsafe.Sizeof(Report{}), 88},
		{"Ack", unsafe.Sizeof(Ack{}), 40},
		{"Enrol", unsafe.Sizeof(Enrol{}), 96},
		{"Enrolled", unsafe.Sizeof(Enrolled{}), 80},
	} {
		t.Logf("%s %d bytes with pointers of %d", c.name, c.size, unsafe.Sizeof(uintptr(0)))
		if c.size > c.most {
			t.Errorf("%s takes %d bytes, at most %d are allowed", c.name, c.size, c.most)
		}
	}
}

func TestKeys(t *testing.T) {
	v := load(t)
	for kind := MessagePoll; kind <= MessageEnrolled; kind++ {
		mac := macOf(t, kind)
		keys := v.Device
		if kind >= MessageEnrol {
			keys.Request, keys.Answer = v.Token.Request, v.Token.Answer
		}
		key := keys.Request
		if kind.Answers() {
			key = keys.Answer
		}
		mac.Begin(kind)
		mac.Write([]byte("some"))
		mac.Write([]byte(" bytes"))
		var got [MACSize]byte
		mac.Sum(got[:])
		want := sum(key, kind.Label(), []byte("some bytes"), t)
		if !bytes.Equal(got[:], want) {
			t.Errorf("%s: %x, want %x", kind.Label(), got, want)
		}
		for i := range got {
			for _, flip := range []byte{0, 1, 0x80} {
				got[i] ^= flip
				mac.Begin(kind)
				mac.Write([]byte("some bytes"))
				if mac.Is(got[:]) != (flip == 0) {
					t.Errorf("%s: with byte %d changed by %#x", kind.Label(), i, flip)
				}
				got[i] ^= flip
			}
		}
		mac.Begin(kind)
		if mac.Is(got[:MACSize-1]) {
			t.Errorf("%s: a MAC that is cut", kind.Label())
		}
	}
	var run digest.SHA256
	var out [SecretSize]byte
	DeviceSecret((*[32]byte)(unhex(t, v.Token.Secret)), (*[16]byte)(unhex(t, v.Token.DeviceNonce)), (*[16]byte)(unhex(t, v.Token.ServerNonce)), []byte(v.Token.Device), &run, &out)
	if hex.EncodeToString(out[:]) != v.Token.DeviceSecret {
		t.Errorf("secret of the device: %x, want %s", out, v.Token.DeviceSecret)
	}
}

func TestVectors(t *testing.T) {
	v := load(t)
	all := samples()
	if len(all) != len(v.Messages) {
		t.Errorf("%d samples, %d vectors", len(all), len(v.Messages))
	}
	for _, m := range v.Messages {
		t.Run(m.Name, func(t *testing.T) {
			want, body := all[m.Name], unhex(t, m.Body)
			if want == nil {
				t.Fatal("no sample")
			}
			kind := kindOf(want)
			if kind.Label() != m.Label {
				t.Errorf("label %q", kind.Label())
			}
			var buf [MaxBody]byte
			out, err := want.Encode(buf[:], macOf(t, kind))
			if err != 0 || !bytes.Equal(out, body) {
				t.Errorf("encoded: %v\n%x\n%x", err, out, body)
			}
			got, err := decode(kind, body, macOf(t, kind))
			if err != 0 || !reflect.DeepEqual(got, want) {
				t.Errorf("decoded: %v\n%+v\n%+v", err, got, want)
			}
			// A buffer of every length below fails, and one of the length does not.
			for n := range body {
				if _, err := want.Encode(make([]byte, n), macOf(t, kind)); err != ErrSpace {
					t.Fatalf("into %d bytes: %v", n, err)
				}
			}
			if _, err := want.Encode(make([]byte, len(body)), macOf(t, kind)); err != 0 {
				t.Errorf("into %d bytes: %v", len(body), err)
			}
		})
	}
}

// TestEveryBit: a bit flipped anywhere in a body is a wrong MAC, and one byte more
// or less is too; nothing was looked at.
func TestEveryBit(t *testing.T) {
	for _, m := range load(t).Messages {
		body := unhex(t, m.Body)
		kind := kindOf(samples()[m.Name])
		mac := macOf(t, kind)
		for bit := range len(body) * 8 {
			body[bit/8] ^= 1 << (bit % 8)
			if got, err := decode(kind, body, mac); err != ErrMAC || !empty(got) {
				t.Fatalf("%s: bit %d: %v, %+v", m.Name, bit, err, got)
			}
			body[bit/8] ^= 1 << (bit % 8)
		}
		for n := range body {
			if _, err := decode(kind, body[:n], mac); err != ErrMAC && err != ErrLength {
				t.Fatalf("%s: cut to %d: %v", m.Name, n, err)
			}
		}
		if _, err := decode(kind, append(body, 0), mac); err != ErrMAC {
			t.Errorf("%s: a byte more: %v", m.Name, err)
		}
	}
}

func empty(m message) bool { return reflect.ValueOf(m).Elem().IsZero() }

// TestNoKindPassesForAnother: under the same secret too.
func TestNoKindPassesForAnother(t *testing.T) {
	device, token := macs(t)
	tried := 0
	for _, m := range load(t).Messages {
		right := kindOf(samples()[m.Name])
		for kind := MessagePoll; kind <= MessageEnrolled; kind++ {
			for _, mac := range []*SoftMAC{device, token} {
				if kind == right && (kind >= MessageEnrol) == (mac == token) {
					continue
				}
				tried++
				if got, err := decode(kind, unhex(t, m.Body), mac); err != ErrMAC || !empty(got) {
					t.Errorf("%s read as %s: %v", m.Name, kind.Label(), err)
				}
			}
		}
	}
	if tried != 16*11 {
		t.Errorf("%d pairs were tried", tried)
	}
}

// TestOther: what is right but answers another request, or another device.
func TestOther(t *testing.T) {
	device, token := macs(t)
	v := load(t)
	name, other := []byte("esp32-0001"), []byte("esp32-0002")
	random := span(1, 8)
	var a Answer
	body := v.body(t, "answer-offer")
	const nonce = 1<<64 - 1
	for _, c := range []struct {
		name   string
		device []byte
		nonce  uint64
		random []byte
		want   Error
	}{
		{"itself", name, nonce, random, 0},
		{"another device", other, nonce, random, ErrOther},
		{"no device", nil, nonce, random, ErrOther},
		{"an older poll", name, nonce - 1, random, ErrOther},
		{"another random", name, nonce, span(2, 8), ErrOther},
		{"a poll without random", name, nonce, nil, ErrOther},
	} {
		if err := a.Decode(body, device, c.device, c.nonce, c.random); err != c.want || (err != 0) != empty(&a) {
			t.Errorf("answer for %s: %v", c.name, err)
		}
	}
	if err := a.Decode(v.body(t, "answer-orders"), device, name, 24, random); err != ErrOther {
		t.Errorf("an answer without the random that the poll had: %v", err)
	}
	var k Ack
	for _, c := range []struct {
		device       []byte
		nonce        uint64
		boot, number uint32
		want         Error
	}{
		{name, 1000, 7, 12, 0}, {other, 1000, 7, 12, ErrOther}, {name, 1001, 7, 12, ErrOther}, {name, 1000, 8, 12, ErrOther}, {name, 1000, 7, 13, ErrOther},
	} {
		if err := k.Decode(v.body(t, "ack"), device, c.device, c.nonce, c.boot, c.number); err != c.want || (err != 0) != empty(&k) {
			t.Errorf("ack for %+v: %v", c, err)
		}
	}
	var e Enrolled
	for _, c := range []struct {
		device []byte
		nonce  []byte
		want   Error
	}{{name, span(0x80, 16), 0}, {other, span(0x80, 16), ErrOther}, {name, span(0x81, 16), ErrOther}} {
		if err := e.Decode(v.body(t, "enrolled-taken"), token, c.device, (*[16]byte)(c.nonce)); err != c.want || (err != 0) != empty(&e) {
			t.Errorf("enrolled for %+v: %v", c, err)
		}
	}
}

func TestPeek(t *testing.T) {
	v := load(t)
	for name, want := range map[string]struct {
		device string
		key    uint8
	}{"poll-full": {"esp32-0001", 3}, "poll-least": {"d", 0}, "report-failed": {"esp32-0001", 3}} {
		body := v.body(t, name)
		body[len(body)-1] ^= 1 // the MAC is none of its business
		device, key, err := Peek(body)
		if err != 0 || string(device) != want.device || key != want.key {
			t.Errorf("%s: %q, %d, %v", name, device, key, err)
		}
	}
	if token, err := PeekToken(v.body(t, "enrol")); err != 0 || string(token) != "batch-7" {
		t.Errorf("%q, %v", token, err)
	}
	mac := make([]byte, MACSize)
	for _, c := range []struct {
		name, cbor string
		want       Error
	}{
		{"nothing", "", ErrLength},
		{"no map", "80", ErrForm},
		{"an empty map", "a0", ErrForm},
		{"another first key", "a2016164020000", ErrForm},
		{"no key", "a1006164", ErrForm},
		{"another second key", "a200616402 00", ErrForm},
		{"a key above 255", "a2006164 01190100", ErrForm},
		{"an empty device", "a20060 0100", ErrForm},
		{"a device with a space", "a200612001 00", ErrForm},
		{"a device with a line end", "a200610a01 00", ErrForm},
		{"a device with an umlaut", "a20062c3bc 0100", ErrForm},
		{"a device as bytes", "a2004164 0100", ErrForm},
		{"a device that reaches into the MAC", "a2006a64", ErrForm},
		{"a device of 65 bytes", "a2007841" + hex.EncodeToString(bytes.Repeat([]byte("x"), 65)) + "0100", ErrForm},
	} {
		body := append(unhex(t, string(bytes.ReplaceAll([]byte(c.cbor), []byte(" "), nil))), mac...)
		if _, _, err := Peek(body); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, s := range []string{"", "80", "a0", "a10160", "a10060", "a1006120", "a1007821" + hex.EncodeToString(bytes.Repeat([]byte("x"), 33))} {
		if _, err := PeekToken(append(unhex(t, s), mac...)); err == 0 {
			t.Errorf("token in %s", s)
		}
	}
	if _, _, err := Peek(make([]byte, MaxBody+1)); err != ErrLength {
		t.Errorf("a body too long: %v", err)
	}
}

func TestErrorsHaveTexts(t *testing.T) {
	seen := map[string]bool{}
	for e := Error(0); e <= ErrSpace+1; e++ {
		if seen[e.Error()] {
			t.Errorf("error %d has the text of another: %s", e, e.Error())
		}
		seen[e.Error()] = true
	}
	if Message(0).Label() != "" || Message(0).Answers() {
		t.Error("a message of no kind has a label")
	}
}

func TestNoAllocation(t *testing.T) {
	device, _ := macs(t)
	body := load(t).body(t, "answer-offer")
	name, random := []byte("esp32-0001"), span(1, 8)
	poll := samples()["poll-full"].(*Poll)
	var a Answer
	var buf [MaxBody]byte
	if n := chiptest.Allocs(10, func() {
		if _, err := poll.Encode(buf[:], device); err != 0 {
			t.Error(err)
		}
		if err := a.Decode(body, device, name, 1<<64-1, random); err != 0 {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
