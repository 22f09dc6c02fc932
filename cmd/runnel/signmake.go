package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/inspect"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/release"
)

// How `runnel sign` makes a release file: an image, old bytes again, or one more
// signature; always shown and asked before, and verified before it has its name.

// keyList finds the list: the one that is named, or the newer of that beside the
// key and that in a release file.
func (s *signing) keyList(inFile []byte) error {
	if s.list != "" {
		t, err := readList(s.list)
		s.trust = t
		return err
	}
	if inFile != nil {
		t, err := ownTrust(inFile)
		if err != nil {
			return err
		}
		s.trust = t
	}
	if s.key != "" {
		beside := filepath.Join(filepath.Dir(s.key), listFile)
		if _, err := os.Stat(beside); err == nil {
			t, err := readList(beside)
			if err != nil {
				return err
			}
			if s.trust == nil || t.Version > s.trust.Version {
				s.trust = t
			}
		}
	}
	if s.trust == nil {
		return usagef("--keylist is missing").withHint("there is none beside the key, and none in a release file")
	}
	return nil
}

// fresh signs an image for the first time.
func (s *signing) fresh(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	im, head, err := release.CheckImageAs(f, imageFormats[s.format])
	if err != nil {
		return hinted(fmt.Errorf("%s: %w", path, err), "'runnel inspect' shows what the file holds")
	}
	if err := s.place(path, &im, head); err != nil {
		return err
	}
	m := &release.Manifest{Product: s.product, Version: s.version, Sequence: s.sequence, SecurityVersion: s.security, Image: im,
		Confirm: release.Confirm{Contact: !s.noContact, Seconds: s.confirm}}
	if m.Hardware, err = parseHardware(s.hardware); err != nil {
		return err
	}
	chunks := make([]uint32, len(s.chunks))
	for i, c := range s.chunks {
		chunks[i] = uint32(c)
	}
	if chunks, err = s.fromLast(m, chunks); err != nil {
		return err
	}
	if len(m.Hardware) == 0 {
		if im.Format != manifest.FormatESP || esp32.ChipName(im.Chip) == "" {
			return usagef("--hardware is missing").withHint("the image names no chip: say which boards it is for")
		}
		m.Hardware = [][]byte{[]byte(chipHardware(im.Chip))}
	}
	if s.trust == nil {
		if err := s.keyList(nil); err != nil {
			return err
		}
	}
	bar := newProgress(s.cmd.ErrOrStderr(), "hashing")
	for _, c := range chunks {
		raw, err := release.DescribeRaw(s.cmd.Context(), f, im.Size, c, func(_ string, done, total int64) { bar.Set(done, total) })
		if err != nil {
			return err
		}
		m.Image.Streams = append(m.Image.Streams, release.Raw{Chunk: c, Root: raw.Root})
	}
	bar.End()
	bases, err := s.bases(m)
	if err != nil {
		return err
	}
	env, err := s.sign(m)
	if err != nil {
		return err
	}
	image := make([]byte, im.Size)
	if _, err := f.ReadAt(image, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	derived, err := s.derive(m, image, bases)
	if err != nil {
		return err
	}
	return s.write(m, func(w io.Writer) error {
		return release.Write(w, &release.File{KeyList: s.trust.Envelope, Manifest: env, Image: bytes.NewReader(image), Size: int64(im.Size), Derived: derived})
	})
}

// chipHardware is the hardware that an ESP image is for where nobody says more.
func chipHardware(chip uint16) string {
	return strings.ToLower(strings.ReplaceAll(esp32.ChipName(chip), "-", ""))
}

// fromLast fills in from --after what was not given, and holds the sequence
// against it.
func (s *signing) fromLast(m *release.Manifest, chunks []uint32) ([]uint32, error) {
	if s.after == "" {
		return chunks, nil
	}
	last, err := s.open(s.after)
	if err != nil {
		return nil, err
	}
	given := s.cmd.Flags().Changed
	l := last.Manifest
	if given("product") && s.product != l.Product {
		return nil, usagef("--product %s: %s is of %s", s.product, s.after, l.Product)
	}
	if m.Sequence, err = s.nextSequence(l); err != nil {
		return nil, err
	}
	m.Product = l.Product
	if !given("hardware") {
		m.Hardware = l.Hardware
	}
	if !given("security-version") {
		m.SecurityVersion = l.SecurityVersion
	}
	if !given("confirm-seconds") {
		m.Confirm.Seconds = l.Confirm.Seconds
	}
	if !given("no-contact") {
		m.Confirm.Contact = l.Confirm.Contact
	}
	if !given("chunk-size") {
		chunks = nil
		for _, st := range l.Image.Streams {
			chunks = append(chunks, st.Chunk)
		}
	}
	if l.Image.Slot != nil {
		// Which slot this image is linked for nobody can tell from the last one.
		if !given("slot") {
			return nil, usagef("%s is for slot %d only: --slot is missing", s.after, *l.Image.Slot).withHint("say which slot this image is linked for")
		}
		if m.Image.Address == nil && m.Image.Slot != nil && *m.Image.Slot == *l.Image.Slot {
			m.Image.Address = l.Image.Address
		}
	}
	return chunks, s.keyList(last.KeyList)
}

func (s *signing) nextSequence(last *release.Manifest) (uint32, error) {
	if !s.cmd.Flags().Changed("sequence") {
		if last.Sequence == 1<<32-1 {
			return 0, hinted(errors.New("no sequence is above the last one"), "a new epoch begins anew: runnel keys product DIR %s --epoch %d", last.Product, last.Epoch+1)
		}
		return last.Sequence + 1, nil
	}
	if s.sequence <= last.Sequence {
		return 0, usagef("--sequence %d is not above that of %s, %d", s.sequence, s.after, last.Sequence)
	}
	return s.sequence, nil
}

// open reads a release file whole, without believing its signatures: what is
// made of it is signed anew, and shown before.
func (s *signing) open(path string) (*release.Contents, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	bar := newProgress(s.cmd.ErrOrStderr(), "reading "+path)
	c, err := release.Verify(s.cmd.Context(), f, nil, release.Options{Unsigned: true, Progress: func(_ string, done, total int64) { bar.Set(done, total) }})
	bar.End()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// again is --reissue.
func (s *signing) again() error {
	old, err := s.open(s.reissue)
	if err != nil {
		return err
	}
	m := old.Manifest
	inFile := old.KeyList
	if s.after != "" {
		last, err := s.open(s.after)
		if err != nil {
			return err
		}
		if last.Manifest.Product != m.Product {
			return usagef("%s is of %s, %s of %s", s.after, last.Manifest.Product, s.reissue, m.Product)
		}
		if m.Sequence, err = s.nextSequence(last.Manifest); err != nil {
			return err
		}
		m.SecurityVersion, inFile = max(m.SecurityVersion, last.Manifest.SecurityVersion), last.KeyList
	} else if s.sequence <= m.Sequence {
		return usagef("--sequence %d is not above that of %s, %d", s.sequence, s.reissue, m.Sequence)
	} else {
		m.Sequence = s.sequence
	}
	given := s.cmd.Flags().Changed
	if given("version") {
		m.Version = s.version
	}
	if given("security-version") {
		m.SecurityVersion = s.security
	}
	if given("confirm-seconds") {
		m.Confirm.Seconds = s.confirm
	}
	if given("no-contact") {
		m.Confirm.Contact = !s.noContact
	}
	if err := s.keyList(inFile); err != nil {
		return err
	}
	env, err := s.sign(m)
	if err != nil {
		return err
	}
	return s.rewrite(m, s.reissue, s.trust.Envelope, env)
}

// addSignature is --add.
func (s *signing) addSignature() error {
	c, err := s.open(s.add)
	if err != nil {
		return err
	}
	if err := s.keyList(c.KeyList); err != nil {
		return err
	}
	if s.out == "" {
		s.out, s.force = s.add, true
	}
	signer, err := s.ask(c.Manifest)
	if err != nil {
		return err
	}
	env, err := release.AddSignature(s.cmd.Context(), manifest.KindManifest, c.ManifestEnvelope, signer)
	if err != nil {
		return err
	}
	return s.rewrite(c.Manifest, s.add, nil, env)
}

// ask shows what is signed, opens the key, and asks.
func (s *signing) ask(m *release.Manifest) (release.Signer, error) {
	p := s.trust.List.Product(m.Product)
	if p == nil {
		return nil, hinted(fmt.Errorf("the key list does not name the product %s: it has no releases", m.Product), "name it: runnel keys product DIR %s", m.Product)
	}
	showManifest(s.cmd.OutOrStdout(), m)
	signer, err := s.signer(s.cmd)
	if err != nil {
		return nil, err
	}
	id := release.KeyName(signer.Public())
	switch k := s.trust.List.Key(signer.Public()); {
	case k == nil:
		return nil, hinted(fmt.Errorf("key %s is not in the key list (version %d): what it signs does not count", id, s.trust.Version), "'runnel keys list' shows which are")
	case k.Roles&manifest.RoleRelease == 0:
		return nil, fmt.Errorf("key %s may sign stream sheets only", id)
	case !k.SignsFor(m.Product):
		return nil, fmt.Errorf("key %s may not sign for %s", id, m.Product)
	}
	fmt.Fprintf(s.cmd.OutOrStdout(), "key               %s\n", id)
	s.by = signer
	return signer, confirmed(s.cmd, s.yes, "sign this release?")
}

// sign fills in what the key list and the clock decide, and signs.
func (s *signing) sign(m *release.Manifest) ([]byte, error) {
	if p := s.trust.List.Product(m.Product); p != nil {
		m.Epoch = p.Epoch
		if m.SecurityVersion < p.Floor {
			if s.cmd.Flags().Changed("security-version") {
				return nil, fmt.Errorf("security version %d is below the key list's floor of %d: no device would take it", m.SecurityVersion, p.Floor)
			}
			m.SecurityVersion = p.Floor
		}
	}
	now, err := signTime()
	if err != nil {
		return nil, err
	}
	m.SignedAt = now
	payload, err := m.Encode()
	if err != nil {
		return nil, err
	}
	signer, err := s.ask(m)
	if err != nil {
		return nil, err
	}
	return release.Sign(s.cmd.Context(), manifest.KindManifest, payload, signer)
}

// signTime is now, or what reproducible builds set.
func signTime() (uint64, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return uint64(time.Now().Unix()), nil
	}
	v, err := strconv.ParseUint(text, 10, 40)
	if err != nil {
		return 0, usagef("SOURCE_DATE_EPOCH=%s is no number of seconds", text)
	}
	return v, nil
}

func (s *signing) rewrite(m *release.Manifest, old string, list, env []byte) error {
	f, err := os.Open(old)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.write(m, func(w io.Writer) error { return release.Replace(w, f, list, env) })
}

// write writes the file, and verifies it as it lies there before it gets its name.
func (s *signing) write(m *release.Manifest, write func(w io.Writer) error) error {
	var short *release.ThresholdError
	var digest [32]byte
	err := replaceFile(s.out, 0o644, func(f *os.File) error {
		if err := write(f); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		c, err := release.Verify(s.cmd.Context(), f, s.trust, release.Options{})
		if errors.As(err, &short) {
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return err
			}
			c, err = release.Verify(s.cmd.Context(), f, nil, release.Options{Unsigned: true})
		}
		if err == nil {
			digest = c.Digest()
		}
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.cmd.OutOrStdout(), "manifest sha256   %x\nwrote             %s\n", digest, s.out)
	if short != nil {
		warn(s.cmd, fmt.Sprintf("%d of %d signatures that %s needs: add one with 'runnel sign --add %s --key KEY'", short.Have, short.Need, m.Product, s.out))
	}
	return nil
}

// showManifest says in full what is signed.
func showManifest(w io.Writer, m *release.Manifest) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-17s %s\n", name, fmt.Sprintf(format, args...))
	}
	row("product", "%s", fleet.CleanText(m.Product, manifest.MaxName))
	row("version", "%s", fleet.CleanText(m.Version, manifest.MaxVersion))
	row("sequence", "%d", m.Sequence)
	row("epoch", "%d", m.Epoch)
	row("security version", "%d", m.SecurityVersion)
	row("image sha256", "%s", m.Image.Digest)
	row("size", "%s bytes, %s", term.Number(int64(m.Image.Size)), formatText(&m.Image))
	if s := m.Image.Slot; s != nil {
		row("slot", "%d only", *s)
	}
	if a := m.Image.Address; a != nil {
		row("address", "0x%08x only", *a)
	}
	row("hardware", "%s", strings.Join(hardwareTexts(m.Hardware), ", "))
	for _, st := range m.Image.Streams {
		row("raw stream", "chunks of %d, root %s", st.Chunk, st.Root)
	}
	row("confirm", "%s within %d seconds", yes(m.Confirm.Contact, "after an answer of the server,", "without contact,"), m.Confirm.Seconds)
}

func formatText(im *release.Image) string {
	if im.Format == manifest.FormatESP {
		if n := esp32.ChipName(im.Chip); n != "" {
			return n
		}
		return fmt.Sprintf("ESP chip %d", im.Chip)
	}
	return "raw"
}

// hardwareTexts shows each as --hardware takes it.
func hardwareTexts(list [][]byte) []string {
	var out []string
	for _, h := range list {
		out = append(out, inspect.HardwareText(h))
	}
	return out
}
