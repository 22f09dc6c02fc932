package native

import "github.com/runnel-fota/runnel/core/cbor"

// State is where a device is with a release (docs/format/exchange.md).
type State uint8

const (
	StateDownloading State = iota + 1
	StateVerifying
	StateRebooting
	StateTrial
	StateConfirmed
	StateReverted
	StateUnproven
	StateFailed
	StateCancelled
	StateSkipped
)

// Report is what a device says of a release.
type Report struct {
	Device []byte // as in a poll
	Digest []byte // SHA-256 of the image

	Nonce           uint64 // as in a poll: of the same row
	Boot, Number    uint32 // name the report: the same pair again is the same report
	Epoch, Sequence uint32 // of the release
	Bytes           uint32 // of the image in flash
	Reason          uint16 // docs/api/reasons.md; 0: none
	State           State
	Key             uint8 // as in a poll
}

const reportMust = 1<<9 - 1 | 1<<10

func (m *Report) valid() bool {
	return isName(m.Device) && len(m.Device) <= MaxDevice && len(m.Digest) == DigestSize &&
		m.State >= StateDownloading && m.State <= StateSkipped
}

// Encode puts the body into buf and returns it.
//
//go:noinline
func (m *Report) Encode(buf []byte, mac MAC) ([]byte, Error) {
	if !m.valid() {
		return nil, ErrField
	}
	var w cbor.Writer
	w.Begin(buf)
	w.Map(10 + count(m.Reason != 0))
	fieldText(&w, 0, m.Device)
	field(&w, 1, uint32(m.Key))
	field64(&w, 2, m.Nonce)
	field(&w, 3, m.Boot)
	field(&w, 4, m.Number)
	field(&w, 5, m.Epoch)
	field(&w, 6, m.Sequence)
	fieldBytes(&w, 7, m.Digest)
	field(&w, 8, uint32(m.State))
	if m.Reason != 0 {
		field(&w, 9, uint32(m.Reason))
	}
	field(&w, 10, m.Bytes)
	return seal(&w, buf, mac, MessageReport)
}

// Decode reads the body of a report whose device and secret Peek found.
func (m *Report) Decode(body []byte, mac MAC) Error {
	*m = Report{}
	var r cbor.Reader
	err := open(&r, body, mac, MessageReport)
	if err == 0 {
		err = m.read(&r)
	}
	if err != 0 {
		*m = Report{}
	}
	return err
}

func (m *Report) read(r *cbor.Reader) Error {
	var seen uint32
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			m.Device = r.Text(MaxDevice)
		case 1:
			m.Key = uint8(r.Uint32(0xFF))
		case 2:
			m.Nonce = r.Uint(1<<64 - 1)
		case 3:
			m.Boot = u32(r)
		case 4:
			m.Number = u32(r)
		case 5:
			m.Epoch = u32(r)
		case 6:
			m.Sequence = u32(r)
		case 7:
			m.Digest = r.Fixed(DigestSize)
		case 8:
			m.State = State(r.Uint32(0xFF))
		case 9:
			if m.Reason = uint16(r.Uint32(0xFFFF)); m.Reason == 0 {
				r.Fail(cbor.ErrValue)
			}
		case 10:
			m.Bytes = u32(r)
		default:
			r.Unknown(k)
			continue
		}
		seen |= 1 << k
	}
	if err := end(r, seen, reportMust); err != 0 {
		return err
	}
	if !m.valid() {
		return ErrField
	}
	return 0
}

// Ack says that a report is durable on the server.
type Ack struct {
	Device       []byte // of the report
	Nonce        uint64 // of the report
	Boot, Number uint32 // of the report
}

const ackMust = 1<<4 - 1

func (m *Ack) valid() bool { return isName(m.Device) && len(m.Device) <= MaxDevice }

// Encode puts the body into buf and returns it.
func (m *Ack) Encode(buf []byte, mac MAC) ([]byte, Error) {
	if !m.valid() {
		return nil, ErrField
	}
	var w cbor.Writer
	w.Begin(buf)
	w.Map(4)
	fieldText(&w, 0, m.Device)
	field64(&w, 1, m.Nonce)
	field(&w, 2, m.Boot)
	field(&w, 3, m.Number)
	return seal(&w, buf, mac, MessageAck)
}

// Decode reads the acknowledgement of the report that device sent with nonce, and
// that is named boot and number. Another one is ErrOther.
//
//go:noinline
func (m *Ack) Decode(body []byte, mac MAC, device []byte, nonce uint64, boot, number uint32) Error {
	*m = Ack{}
	var r cbor.Reader
	err := open(&r, body, mac, MessageAck)
	if err == 0 {
		err = m.read(&r)
	}
	if err == 0 && (m.Nonce != nonce || m.Boot != boot || m.Number != number || !equal(m.Device, device)) {
		err = ErrOther
	}
	if err != 0 {
		*m = Ack{}
	}
	return err
}

func (m *Ack) read(r *cbor.Reader) Error {
	var seen uint32
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			m.Device = r.Text(MaxDevice)
		case 1:
			m.Nonce = r.Uint(1<<64 - 1)
		case 2:
			m.Boot = u32(r)
		case 3:
			m.Number = u32(r)
		default:
			r.Unknown(k)
			continue
		}
		seen |= 1 << k
	}
	if err := end(r, seen, ackMust); err != 0 {
		return err
	}
	if !m.valid() {
		return ErrField
	}
	return 0
}
