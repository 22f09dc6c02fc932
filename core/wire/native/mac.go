package native

import "github.com/runnel-fota/runnel/core/digest"

// MAC authenticates the messages of one device, or of one token. SoftMAC is the one
// in software; a chip that has the two keys in a peripheral brings its own. One
// whose hardware fails returns a wrong sum: nothing is accepted under it.
type MAC interface {
	// Begin starts HMAC-SHA256 under the request or the answer key, as kind says
	// (Answers), with the kind's Label and a zero byte.
	Begin(kind Message)
	// Write adds p, which it does not keep.
	Write(p []byte)
	// Sum ends it and puts the MAC to the front of out, which has room for it.
	Sum(out []byte)
	// Is ends it and reports whether mac is the MAC, in constant time.
	Is(mac []byte) bool
}

var _ MAC = (*SoftMAC)(nil)

// Keys are the two keys that follow from a secret, prepared: 128 bytes. The secret
// need not be kept.
type Keys struct {
	Request digest.Key // polls, reports, enrolments
	Answer  digest.Key // answers, acknowledgements, enrolled
}

// Salts of HKDF's extract step (RFC 5869, 2.2). The secret is its message, not its
// key: where one secret has to serve v1 too, no MAC that v1 makes with it, over
// bytes that a publisher chose, is a key here.
const (
	saltDevice = "runnel/native/1"
	saltToken  = "runnel/token/1"
)

// Derive makes the keys of a device's secret. run is lost.
func (k *Keys) Derive(secret *[SecretSize]byte, run *digest.SHA256) {
	k.derive(saltDevice, secret, run)
}

// DeriveToken makes the keys under which a device enrols with a token. run is lost.
func (k *Keys) DeriveToken(secret *[SecretSize]byte, run *digest.SHA256) {
	k.derive(saltToken, secret, run)
}

//go:noinline
func (k *Keys) derive(salt string, secret *[SecretSize]byte, run *digest.SHA256) {
	var prk digest.Key
	var okm [digest.Size]byte
	extract(&prk, salt, secret, run)
	prk.Begin(run)
	writeText(run, "request\x01")
	prk.Sum(run, &okm)
	k.Request.Set(okm[:], run)
	prk.Begin(run)
	writeText(run, "answer\x01")
	prk.Sum(run, &okm)
	k.Answer.Set(okm[:], run)
}

// DeviceSecret puts into out the secret that both sides compute when a token has
// made device known. token is the token's secret; run is lost.
func DeviceSecret(token *[SecretSize]byte, deviceNonce, serverNonce *[NonceSize]byte, device []byte, run *digest.SHA256, out *[SecretSize]byte) {
	var prk digest.Key
	extract(&prk, saltToken, token, run)
	prk.Begin(run)
	writeText(run, "device")
	run.Write(deviceNonce[:])
	run.Write(serverNonce[:])
	run.Write(device)
	writeText(run, "\x01")
	prk.Sum(run, out)
}

// extract makes prk the key that HKDF's expand step works with.
func extract(prk *digest.Key, salt string, secret *[SecretSize]byte, run *digest.SHA256) {
	var b [digest.Size]byte
	prk.Set(b[:copy(b[:], salt)], run)
	prk.Begin(run)
	run.Write(secret[:])
	prk.Sum(run, &b)
	prk.Set(b[:], run)
}

// writeText adds s, of which core makes no byte slice: it would be on the heap.
func writeText(run *digest.SHA256, s string) {
	var b [32]byte
	for len(s) > 0 {
		n := copy(b[:], s)
		run.Write(b[:n])
		s = s[n:]
	}
}

// SoftMAC is MAC in software. It owns neither the keys nor the running hash,
// which it uses between Begin and Sum: a device has one for everything.
type SoftMAC struct {
	Keys *Keys
	Run  *digest.SHA256
	kind Message
}

func (m *SoftMAC) key() *digest.Key {
	if m.kind.Answers() {
		return &m.Keys.Answer
	}
	return &m.Keys.Request
}

// Begin starts a message.
func (m *SoftMAC) Begin(kind Message) {
	m.kind = kind
	m.key().Begin(m.Run)
	writeText(m.Run, kind.Label())
	writeText(m.Run, "\x00")
}

// Write adds p.
func (m *SoftMAC) Write(p []byte) { m.Run.Write(p) }

// Sum ends it.
func (m *SoftMAC) Sum(out []byte) { m.key().Sum(m.Run, (*[MACSize]byte)(out)) }

// Is ends it.
func (m *SoftMAC) Is(mac []byte) bool {
	var sum [MACSize]byte
	m.key().Sum(m.Run, &sum)
	return digest.Equal(sum[:], mac)
}
