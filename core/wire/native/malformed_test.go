package native

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/cbor"
)

// told is what a body says of itself, whatever it is worth: the text of field 0, a
// number of field number, the bytes of field fixed.
func told(body []byte, number, fixed int) (device []byte, n uint64, p []byte) {
	if len(body) < MACSize {
		return nil, 0, nil
	}
	var r cbor.Reader
	r.Begin(body[:len(body)-MACSize])
	for i := r.Map(); i > 0; i-- {
		switch k := r.Key(); {
		case r.Err() != 0:
			return
		case k == 0:
			device = r.Text(1024)
		case k == number:
			n = r.Uint(1<<64 - 1)
		case k == fixed:
			p = r.Bytes(1024)
		default:
			r.Skip()
		}
	}
	return
}

// pairs is a map as the test sees it: keys with their encoded values.
type pairs map[int][]byte

func split(t testing.TB, p []byte) pairs {
	t.Helper()
	var r cbor.Reader
	r.Begin(p)
	m := pairs{}
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		from := r.Pos()
		r.Skip()
		m[k] = r.Raw(from)
	}
	r.End()
	if r.Err() != 0 {
		t.Fatal(r.Err())
	}
	return m
}

func (m pairs) join() []byte {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		a, b := keys[i], keys[j]
		if (a < 0) != (b < 0) {
			return b < 0
		}
		return (a < b) == (a >= 0)
	})
	buf := make([]byte, 2048)
	var w cbor.Writer
	w.Begin(buf)
	w.Map(len(m))
	for _, k := range keys {
		w.Key(k)
		w.Raw(m[k])
	}
	p, err := w.Done()
	if err != 0 {
		panic(err)
	}
	return p
}

func (m pairs) with(k int, value string) pairs {
	out := pairs{}
	for key, v := range m {
		out[key] = v
	}
	if value == "" {
		delete(out, k)
		return out
	}
	p, err := hex.DecodeString(strings.ReplaceAll(value, " ", ""))
	if err != nil {
		panic(err)
	}
	out[k] = p
	return out
}

// sealed puts the right MAC behind p: what is refused then is refused for p.
func sealed(p []byte, kind Message, mac MAC) []byte {
	mac.Begin(kind)
	mac.Write(p)
	var s [MACSize]byte
	mac.Sum(s[:])
	return append(append([]byte{}, p...), s[:]...)
}

func text(n int) string {
	return hex.EncodeToString(append([]byte{0x78, byte(n)}, bytes.Repeat([]byte("x"), n)...))
}

func octets(n int) string {
	if n < 24 {
		return hex.EncodeToString(append([]byte{0x40 + byte(n)}, make([]byte, n)...))
	}
	return hex.EncodeToString(append([]byte{0x58, byte(n)}, make([]byte, n)...))
}

// TestShelf has messages with one defect each, under the right MAC.
func TestShelf(t *testing.T) {
	const over32 = "1b0000000100000000"
	type row struct {
		name  string
		from  string // vector
		key   int
		value string // "": the field is left out
		want  Error
	}
	rows := []row{
		{"poll: device empty", "poll-full", 0, "60", ErrField},
		{"poll: device of 65 bytes", "poll-full", 0, text(65), ErrField},
		{"poll: device with a space", "poll-full", 0, "636120 62", ErrField},
		{"poll: device with a control character", "poll-full", 0, "626101", ErrField},
		{"poll: device not ASCII", "poll-full", 0, "62c3bc", ErrField},
		{"poll: device not UTF-8", "poll-full", 0, "61ff", ErrForm},
		{"poll: device as bytes", "poll-full", 0, "4161", ErrForm},
		{"poll: key of 256", "poll-full", 1, "190100", ErrField},
		{"poll: nonce negative", "poll-full", 2, "20", ErrForm},
		{"poll: random of 7", "poll-full", 3, octets(7), ErrField},
		{"poll: random of 9", "poll-full", 3, octets(9), ErrField},
		{"poll: random empty", "poll-full", 3, "40", ErrField},
		{"poll: boot of 33 bits", "poll-full", 4, over32, ErrField},
		{"poll: digest of 31", "poll-full", 5, octets(31), ErrField},
		{"poll: version empty", "poll-full", 6, "60", ErrField},
		{"poll: version of 65", "poll-full", 6, text(65), ErrField},
		{"poll: epoch of 33 bits", "poll-full", 7, over32, ErrField},
		{"poll: profile 0", "poll-full", 12, "00", ErrField},
		{"poll: profile 3", "poll-full", 12, "03", ErrField},
		{"poll: hardware empty", "poll-full", 13, "40", ErrField},
		{"poll: hardware of 33", "poll-full", 13, octets(33), ErrField},
		{"poll: chip of 17 bits", "poll-full", 14, "1a00010000", ErrField},
		{"poll: no slots", "poll-full", 15, "80", ErrField},
		{"poll: 17 slots", "poll-full", 15, "91" + strings.Repeat("00", 17), ErrField},
		{"poll: a slot of 33 bits", "poll-full", 15, "82 00" + over32, ErrField},
		{"poll: a slot that is no number", "poll-full", 15, "82 00 40", ErrForm},
		{"poll: running above the slots", "poll-full", 16, "02", ErrField},
		{"poll: running 254", "poll-full", 16, "18fe", ErrField},
		{"poll: progress without sequence", "poll-full", 19, "", ErrField},
		{"poll: sequence without progress", "poll-full", 20, "", ErrField},
		{"poll: sequence 0 in progress", "poll-full", 19, "00", ErrField},
		{"poll: security of 9 bits", "poll-full", 21, "190100", ErrField},
		{"poll: unknown field", "poll-full", 23, "00", ErrUnknown},
		{"answer: sequence 0 cancelled", "answer-orders", 8, "00", ErrField},
		{"answer: order 0", "answer-orders", 9, "00", ErrField},
		{"answer: retry of 33", "answer-orders", 10, octets(33), ErrField},
		{"answer: random of 7", "answer-orders", 11, octets(7), ErrField},
		{"answer: offer as an array", "answer-offer", 7, "80", ErrForm},
		{"answer: offer empty", "answer-offer", 7, "a0", ErrField},
		{"answer: time of 33 bits", "answer-offer", 6, over32, ErrField},
		{"answer: unknown field", "answer-nothing", 12, "f5", ErrUnknown},
		{"answer: null for no offer", "answer-nothing", 7, "f6", ErrForm},
		{"report: digest of 31", "report-failed", 7, octets(31), ErrField},
		{"report: state 0", "report-failed", 8, "00", ErrField},
		{"report: state 11", "report-failed", 8, "0b", ErrField},
		{"report: reason 0", "report-failed", 9, "00", ErrField},
		{"report: reason of 17 bits", "report-failed", 9, "1a00010000", ErrField},
		{"report: unknown field", "report-failed", 11, "00", ErrUnknown},
		{"ack: unknown field", "ack", 4, "00", ErrUnknown},
		{"ack: number of 33 bits", "ack", 3, over32, ErrField},
		{"enrol: token empty", "enrol", 0, "60", ErrField},
		{"enrol: token of 33", "enrol", 0, text(33), ErrField},
		{"enrol: nonce of 15", "enrol", 2, octets(15), ErrField},
		{"enrol: hardware empty", "enrol", 3, "40", ErrField},
		{"enrol: unknown field", "enrol", 4, "00", ErrUnknown},
		{"enrolled: server's nonce of 17", "enrolled-taken", 2, octets(17), ErrField},
		{"enrolled: status 0", "enrolled-taken", 3, "00", ErrField},
		{"enrolled: status 4", "enrolled-taken", 3, "04", ErrField},
		{"enrolled: unknown field", "enrolled-taken", 4, "00", ErrUnknown},
	}
	must := map[string][]int{
		"poll-full":    {0, 1, 2, 4, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 21},
		"answer-offer": {0, 1, 2, 3, 4, 5, 6}, "report-failed": {0, 1, 2, 3, 4, 5, 6, 7, 8, 10},
		"ack": {0, 1, 2, 3}, "enrol": {0, 1, 2, 3}, "enrolled-taken": {0, 1, 2, 3},
	}
	for from, keys := range must {
		for _, k := range keys {
			rows = append(rows, row{from + ": a field is missing", from, k, "", ErrField})
		}
	}
	may := map[string][]int{"poll-full": {3, 5, 6, 14, 22}, "answer-offer": {7, 11}, "answer-orders": {8, 9, 10}, "report-failed": {9}}
	for from, keys := range may {
		for _, k := range keys {
			rows = append(rows, row{from + ": a field may be absent", from, k, "", 0})
		}
	}
	for from := range samples() {
		rows = append(rows, row{from + ": a note for others", from, -7, "a1 00 82 01 f5", 0},
			row{from + ": a note with a float", from, -7, "f93c00", ErrForm})
	}
	v := load(t)
	for _, c := range rows {
		kind := kindOf(samples()[c.from])
		body := v.body(t, c.from)
		m := split(t, body[:len(body)-MACSize]).with(c.key, c.value)
		mac := macOf(t, kind)
		got, err := decode(kind, sealed(m.join(), kind, mac), mac)
		if err != c.want || (err != 0) != empty(got) {
			t.Errorf("%s (%d): %v, want %v; %+v", c.name, c.key, err, c.want, got)
		}
	}
}

func TestOfferShelf(t *testing.T) {
	mac := macOf(t, MessageAnswer)
	body := load(t).body(t, "answer-offer")
	m := split(t, body[:len(body)-MACSize])
	offer := split(t, m[7])
	for _, c := range []struct {
		name  string
		key   int
		value string
		want  Error
	}{
		{"as it is", -1, "00", 0},
		{"no epoch", 0, "", ErrField}, {"no sequence", 1, "", ErrField}, {"no manifest", 2, "", ErrField}, {"no manifest length", 3, "", ErrField},
		{"no stream", 4, "", ErrField}, {"no chunk", 5, "", ErrField}, {"no file length", 6, "", ErrField},
		{"sequence 0", 1, "00", ErrField},
		{"manifest of 31", 2, octets(31), ErrField},
		{"stream of 31", 4, octets(31), ErrField},
		{"stream as text", 4, text(32), ErrForm},
		{"unknown field", 10, "00", ErrUnknown},
		{"a sheet alone", 7, octets(32), ErrField}, {"a derived stream alone", 9, octets(32), ErrField}, {"a sheet's length alone", 8, "05", ErrField},
		{"a sheet of 31", 7, octets(31), ErrField}, {"a sheet of no bytes", 8, "00", ErrField}, {"a derived stream as text", 9, text(32), ErrForm},
	} {
		p := m.with(7, hex.EncodeToString(offer.with(c.key, c.value).join())).join()
		if got, err := decode(MessageAnswer, sealed(p, MessageAnswer, mac), mac); err != c.want || (err != 0) != empty(got) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestForms(t *testing.T) {
	mac := macOf(t, MessageAck)
	ack := "a4 006164 0100 0200 0300"
	for _, c := range []struct {
		name, cbor string
		want       Error
	}{
		{"as it is", ack, 0},
		{"a byte behind", ack + "00", ErrForm},
		{"no map", "80", ErrForm},
		{"cut", "a4 006164 0100 0200", ErrForm},
		{"keys repeat", "a5 006164 0100 0100 0200 0300", ErrForm},
		{"keys fall", "a4 006164 0200 0100 0300", ErrForm},
		{"a number not shortest", "a4 006164 011800 0200 0300", ErrForm},
		{"indefinite", "bf 006164 0100 0200 0300 ff", ErrForm},
		{"tagged", "c1" + ack, ErrForm},
		{"two objects", ack + ack, ErrForm},
		{"an empty map", "a0", ErrField},
	} {
		p, err := hex.DecodeString(strings.ReplaceAll(c.cbor, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		var m Ack
		if got := m.Decode(sealed(p, MessageAck, mac), mac, []byte("d"), 0, 0, 0); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	var m Ack
	for _, n := range []int{0, 1, MACSize, MaxBody + 1} {
		if err := m.Decode(make([]byte, n), mac, []byte("d"), 0, 0, 0); err != ErrLength {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	// The longest body is still read, by its MAC at least.
	if err := m.Decode(make([]byte, MaxBody), mac, []byte("d"), 0, 0, 0); err != ErrMAC {
		t.Errorf("%d bytes: %v", MaxBody, err)
	}
}

// TestEncodeRefuses: nothing is written that the other side would refuse.
func TestEncodeRefuses(t *testing.T) {
	for name, change := range map[string]func(message){
		"poll-full: no device":               func(m message) { m.(*Poll).Device = nil },
		"poll-full: a device with a space":   func(m message) { m.(*Poll).Device = []byte("a b") },
		"poll-full: a long device":           func(m message) { m.(*Poll).Device = make([]byte, 65) },
		"poll-full: random of 7":             func(m message) { m.(*Poll).Random = make([]byte, 7) },
		"poll-full: random empty, not nil":   func(m message) { m.(*Poll).Random = []byte{} },
		"poll-full: digest of 31":            func(m message) { m.(*Poll).Digest = make([]byte, 31) },
		"poll-full: version empty, not nil":  func(m message) { m.(*Poll).Version = []byte{} },
		"poll-full: version not UTF-8":       func(m message) { m.(*Poll).Version = []byte{0xFF} },
		"poll-full: no hardware":             func(m message) { m.(*Poll).Hardware = nil },
		"poll-full: no slots":                func(m message) { m.(*Poll).SlotCount = 0 },
		"poll-full: 17 slots":                func(m message) { m.(*Poll).SlotCount = 17 },
		"poll-full: running elsewhere":       func(m message) { m.(*Poll).Running = 2 },
		"poll-full: no profile":              func(m message) { m.(*Poll).Profile = 0 },
		"poll-full: progress of nothing":     func(m message) { m.(*Poll).InProgress = 0 },
		"poll-full: a chip that is not said": func(m message) { m.(*Poll).HasChip = false },
		"poll-least: a version not said":     func(m message) { m.(*Poll).SecureVersion = 1 },
		"answer-offer: no device":            func(m message) { m.(*Answer).Device = nil },
		"answer-offer: random of 9":          func(m message) { m.(*Answer).Random = make([]byte, 9) },
		"answer-offer: no manifest":          func(m message) { m.(*Answer).Offer.Manifest = nil },
		"answer-offer: no stream":            func(m message) { m.(*Answer).Offer.Stream = nil },
		"answer-offer: a long stream":        func(m message) { m.(*Answer).Offer.Stream = make([]byte, 33) },
		"answer-offer: sequence 0":           func(m message) { m.(*Answer).Offer.Sequence = 0 },
		"answer-orders: retry of 31":         func(m message) { m.(*Answer).Retry = make([]byte, 31) },
		"report-failed: no state":            func(m message) { m.(*Report).State = 0 },
		"report-failed: no digest":           func(m message) { m.(*Report).Digest = nil },
		"ack: no device":                     func(m message) { m.(*Ack).Device = nil },
		"enrol: no nonce":                    func(m message) { m.(*Enrol).Nonce = nil },
		"enrol: no token":                    func(m message) { m.(*Enrol).Token = nil },
		"enrolled-taken: no status":          func(m message) { m.(*Enrolled).Status = 0 },
		"enrolled-taken: no nonce":           func(m message) { m.(*Enrolled).ServerNonce = nil },
	} {
		from, _, _ := strings.Cut(name, ":")
		m := samples()[from]
		change(m)
		if p, err := m.Encode(make([]byte, MaxBody), macOf(t, kindOf(m))); err != ErrField || p != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func hasNotes(m pairs) bool {
	for k := range m {
		if k < 0 {
			return true
		}
	}
	return false
}

// fuzz: of any bytes under the right MAC, what is decoded is encoded the same
// again, but for notes with negative keys; and without the right MAC nothing is.
func fuzz(f *testing.F, kind Message) {
	v := load(f)
	for name, m := range samples() {
		if kindOf(m) == kind {
			body := v.body(f, name)
			f.Add(body[:len(body)-MACSize])
		}
	}
	mac := macOf(f, kind)
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > MaxBody {
			return
		}
		body := sealed(p, kind, mac)
		m, err := decode(kind, body, mac)
		if err != 0 {
			if !empty(m) {
				t.Fatalf("%v, and a message: %+v", err, m)
			}
			return
		}
		notes := hasNotes(split(t, p))
		if a, ok := m.(*Answer); ok && a.HasOffer {
			notes = notes || hasNotes(split(t, split(t, p)[7]))
		}
		var buf [MaxBody]byte
		out, err := m.Encode(buf[:], mac)
		if err != 0 {
			t.Fatalf("decoded and not encoded: %v, %+v", err, m)
		}
		again, err := decode(kind, out, mac)
		if err != 0 || !reflect.DeepEqual(again, m) {
			t.Fatalf("%v: %+v came back as %+v", err, m, again)
		}
		if !notes && !bytes.Equal(out[:len(out)-MACSize], p) {
			t.Fatalf("decoded % x, encoded % x", p, out)
		}
		body[len(body)-1] ^= 1
		if _, err := decode(kind, body, mac); err != ErrMAC {
			t.Fatalf("with another MAC: %v", err)
		}
		_, _, _ = Peek(body)
		_, _ = PeekToken(body)
	})
}

func FuzzPoll(f *testing.F)     { fuzz(f, MessagePoll) }
func FuzzAnswer(f *testing.F)   { fuzz(f, MessageAnswer) }
func FuzzReport(f *testing.F)   { fuzz(f, MessageReport) }
func FuzzAck(f *testing.F)      { fuzz(f, MessageAck) }
func FuzzEnrol(f *testing.F)    { fuzz(f, MessageEnrol) }
func FuzzEnrolled(f *testing.F) { fuzz(f, MessageEnrolled) }

// FuzzPeek: no bytes make it read beyond the body, and what it finds is what a
// decoder with the right key finds.
func FuzzPeek(f *testing.F) {
	for _, m := range load(f).Messages {
		f.Add(unhex(f, m.Body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		device, _, err := Peek(body)
		if err == 0 && (!isName(device) || len(device) > MaxDevice || !bytes.Contains(body, device)) {
			t.Fatalf("device %q in % x", device, body)
		}
		token, err := PeekToken(body)
		if err == 0 && (!isName(token) || len(token) > MaxToken || !bytes.Contains(body, token)) {
			t.Fatalf("token %q in % x", token, body)
		}
	})
}
