package manifest

import (
	"bytes"
	"strings"
	"testing"
	"unsafe"

	"github.com/runnel-fota/runnel/core/cbor"
)

func cb(e cbor.Error) Error { return fromCBOR(e) }

// The malformed shelf: one defect each, named after it.

func TestMalformedEnvelopes(t *testing.T) {
	p := []byte("payload")
	sig := func(protected []byte, sig []byte) arr { return arr{protected, mp{}, sig} }
	good := append([]byte{0xA2, 1, 0x27, 4, 0x48}, keyID(1)...)
	s64 := make([]byte, 64)
	cases := map[string]struct {
		p    []byte
		want Error
	}{
		"good":                    {wrap(p, arr{sig(good, s64)}), 0},
		"unprotected, of profile": {append([]byte{0xD8, 0x62}, enc(arr{[]byte{}, mp{9, "x"}, p, arr{arr{good, mp{-1, 2}, s64}}})...), 0},
		"empty":                   {nil, cb(cbor.ErrEnd)},
		"no tag":                  {wrap(p, arr{sig(good, s64)})[2:], cb(cbor.ErrType)},
		"tag of COSE_Sign1":       {append([]byte{0xD2}, wrap(p, arr{sig(good, s64)})[2:]...), cb(cbor.ErrType)},
		"five members":            {append([]byte{0xD8, 0x62}, enc(arr{[]byte{}, mp{}, p, arr{sig(good, s64)}, 1})...), cb(cbor.ErrValue)},
		"body protected":          {append([]byte{0xD8, 0x62}, enc(arr{[]byte{0xA0}, mp{}, p, arr{sig(good, s64)}})...), cb(cbor.ErrLimit)},
		"unprotected no map":      {append([]byte{0xD8, 0x62}, enc(arr{[]byte{}, 1, p, arr{sig(good, s64)}})...), cb(cbor.ErrType)},
		"unprotected text key":    {append([]byte{0xD8, 0x62}, enc(arr{[]byte{}, mp{"a", 1}, p, arr{sig(good, s64)}})...), cb(cbor.ErrKey)},
		"payload detached":        {append([]byte{0xD8, 0x62}, enc(arr{[]byte{}, mp{}, raw{0xF6}, arr{sig(good, s64)}})...), cb(cbor.ErrBanned)},
		"payload empty":           {wrap(nil, arr{sig(good, s64)}), ErrSize},
		"payload at its limit":    {wrap(make([]byte, 1024), arr{sig(good, s64)}), 0},
		"payload above its limit": {wrap(make([]byte, 1025), arr{sig(good, s64)}), ErrSize},
		"payload in a long form":  {append([]byte{0xD8, 0x62}, enc(arr{[]byte{}, mp{}, raw("\x58\x07payload"), arr{sig(good, s64)}})...), cb(cbor.ErrForm)},
		"no signature":            {wrap(p, arr{}), ErrSignatures},
		"four signatures":         {wrap(p, arr{sig(good, s64), sig(good, s64), sig(good, s64), sig(good, s64)}), 0},
		"five signatures":         {wrap(p, arr{sig(good, s64), sig(good, s64), sig(good, s64), sig(good, s64), sig(good, s64)}), ErrSignatures},
		"signature of two":        {wrap(p, arr{arr{good, s64}}), cb(cbor.ErrValue)},
		"signature short":         {wrap(p, arr{sig(good, s64[:63])}), cb(cbor.ErrValue)},
		"signature long":          {wrap(p, arr{sig(good, make([]byte, 65))}), cb(cbor.ErrLimit)},
		"protected without kid":   {wrap(p, arr{sig([]byte{0xA1, 1, 0x27}, s64)}), ErrHeader},
		"protected with a third":  {wrap(p, arr{sig(append(append([]byte{0xA3}, good[1:]...), 5, 0), s64)}), ErrHeader},
		"protected turned round":  {wrap(p, arr{sig(append(append([]byte{0xA2}, good[3:]...), 1, 0x27), s64)}), ErrHeader},
		"protected alg positive":  {wrap(p, arr{sig(append([]byte{0xA2, 1, 0x07}, good[3:]...), s64)}), ErrHeader},
		"protected kid short":     {wrap(p, arr{sig(append([]byte{0xA2, 1, 0x27, 4, 0x47}, keyID(1)[:7]...), s64)}), ErrHeader},
		"bytes behind":            {append(wrap(p, arr{sig(good, s64)}), 0), cb(cbor.ErrTrailing)},
		"cut":                     {wrap(p, arr{sig(good, s64)})[:90], cb(cbor.ErrEnd)},
	}
	for name, c := range cases {
		var e Envelope
		if got := e.Parse(c.p); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestEnvelopeViews(t *testing.T) {
	p := seal(KindManifest, []byte("payload"), 1, 2)
	var e Envelope
	if err := e.Parse(p); err != 0 {
		t.Fatal(err)
	}
	if string(e.Payload) != "payload" || e.N != 2 || !bytes.Equal(e.Sigs[1].KeyID, keyID(2)) || e.Sigs[0].Alg != AlgEdDSA {
		t.Errorf("%+v", e)
	}
	if i := bytes.Index(p, []byte("payload")); &p[i] != &e.Payload[0] {
		t.Error("the payload is a copy")
	}
}

// TestHead wants the head of every kind and length to be the Sig_structure's front.
func TestHead(t *testing.T) {
	var buf [HeadSize]byte
	for _, kind := range []Kind{KindKeys, KindManifest, KindSheet} {
		for _, n := range []int{1, 23, 24, 255, 256, 1024} {
			protected := append([]byte{0xA2, 1, 0x27, 4, 0x48}, keyID(1)...)
			want := enc(arr{"Signature", []byte{}, protected, []byte(kind.Label()), make([]byte, n)})
			if got := Head(&buf, kind, AlgEdDSA, keyID(1), n); !bytes.Equal(got, want[:len(want)-n]) {
				t.Errorf("%s, %d bytes:\n% x\n% x", kind.Label(), n, got, want[:len(want)-n])
			}
		}
	}
}

func TestMalformedKeyLists(t *testing.T) {
	good := listOf(1, 1, 1, 1, 2)
	keys := func(k ...any) mp { return good.set(4, arr(k)) }
	key := mp{0, -8, 1, public(10), 2, 1}
	product := mp{0, "acme/pump", 1, 1, 2, 3, 3, 4}
	many := func(n int, from int) arr {
		a := arr{}
		for i := range n {
			a = append(a, mp{0, -8, 1, public(from + i), 2, 1})
		}
		return a
	}
	names := func(n int) arr {
		a := arr{}
		for range n {
			a = append(a, "a")
		}
		return a
	}
	reduced := bytes.Repeat([]byte{0xFF}, 32)
	reduced[0], reduced[31] = 0xED, 0x7F
	below := bytes.Clone(reduced)
	below[0] = 0xEB // 2^255-21: no point, but reduced
	small := make([]byte, 32)
	small[0] = 1
	negative := bytes.Clone(small)
	negative[31] = 0x80
	cases := map[string]struct {
		m    mp
		want Error
	}{
		"good":                        {good, 0},
		"no keys, no products":        {good.set(4, arr{}).set(5, arr{}), 0},
		"a note":                      {good.set(-5, arr{mp{1, "x"}}), 0},
		"a note in a key":             {keys(key.set(-1, 1)), 0},
		"a note in a root":            {good.set(3, arr{mp{0, -8, 1, public(1), -1, 1}}), 0},
		"version 0":                   {good.set(0, 0), cb(cbor.ErrValue)},
		"version of 33 bits":          {good.set(0, uint64(1<<32)), cb(cbor.ErrLimit)},
		"no version":                  {good.without(0), cb(cbor.ErrMissing)},
		"generation 0":                {good.set(1, 0), cb(cbor.ErrValue)},
		"no generation":               {good.without(1), cb(cbor.ErrMissing)},
		"m 0":                         {good.set(2, 0), ErrM},
		"m 5":                         {good.set(2, 5), cb(cbor.ErrLimit)},
		"m above the roots":           {good.set(2, 3), ErrM},
		"no roots":                    {good.set(3, arr{}), cb(cbor.ErrValue)},
		"eight roots":                 {good.set(3, rootsOf(1, 2, 3, 4, 5, 6, 7, 8)), 0},
		"nine roots":                  {good.set(3, rootsOf(1, 2, 3, 4, 5, 6, 7, 8, 9)), cb(cbor.ErrLimit)},
		"roots absent":                {good.without(3), cb(cbor.ErrMissing)},
		"root with roles":             {good.set(3, arr{mp{0, -8, 1, public(1), 2, 1}}), cb(cbor.ErrUnknown)},
		"root twice":                  {good.set(3, rootsOf(1, 1)), ErrKeyTwice},
		"ES256 key":                   {keys(key.set(0, -7)), ErrAlg},
		"key without alg":             {keys(key.without(0)), cb(cbor.ErrMissing)},
		"key of 31 bytes":             {keys(key.set(1, public(10)[:31])), cb(cbor.ErrValue)},
		"key of 33 bytes":             {keys(key.set(1, make([]byte, 33))), cb(cbor.ErrLimit)},
		"key not reduced":             {keys(key.set(1, reduced)), ErrKeyForm},
		"key just reduced":            {keys(key.set(1, below)), 0},
		"key of small order":          {keys(key.set(1, small)), ErrKeyOrder},
		"the same with the other x":   {keys(key.set(1, negative)), ErrKeyOrder},
		"root of small order":         {good.set(3, arr{mp{0, -8, 1, small}}), ErrKeyOrder},
		"key absent":                  {keys(key.without(1)), cb(cbor.ErrMissing)},
		"no roles":                    {keys(key.set(2, 0)), cb(cbor.ErrValue)},
		"roles absent":                {keys(key.without(2)), cb(cbor.ErrMissing)},
		"unknown role":                {keys(key.set(2, 4)), cb(cbor.ErrLimit)},
		"both roles":                  {keys(key.set(2, 3)), 0},
		"key for no product":          {keys(key.set(3, arr{})), cb(cbor.ErrValue)},
		"key for eight products":      {keys(key.set(3, names(8))), 0},
		"key for nine products":       {keys(key.set(3, names(9))), cb(cbor.ErrLimit)},
		"key for a nameless product":  {keys(key.set(3, arr{""})), cb(cbor.ErrValue)},
		"key with an unknown field":   {keys(key.set(4, 1)), cb(cbor.ErrUnknown)},
		"key twice":                   {keys(key, key), ErrKeyTwice},
		"key that is a root":          {keys(key.set(1, public(2))), ErrKeyTwice},
		"sixteen keys":                {good.set(4, many(16, 30)), 0},
		"seventeen keys":              {good.set(4, many(17, 30)), cb(cbor.ErrLimit)},
		"keys absent":                 {good.without(4), cb(cbor.ErrMissing)},
		"product without a name":      {good.set(5, arr{product.set(0, "")}), cb(cbor.ErrValue)},
		"product with a long name":    {good.set(5, arr{product.set(0, strings.Repeat("a", 65))}), cb(cbor.ErrLimit)},
		"product not UTF-8":           {good.set(5, arr{product.set(0, "\xFF")}), cb(cbor.ErrText)},
		"threshold 0":                 {good.set(5, arr{product.set(1, 0)}), cb(cbor.ErrValue)},
		"threshold 5":                 {good.set(5, arr{product.set(1, 5)}), cb(cbor.ErrLimit)},
		"epoch of 33 bits":            {good.set(5, arr{product.set(2, uint64(1<<32))}), cb(cbor.ErrLimit)},
		"floor absent":                {good.set(5, arr{product.without(3)}), cb(cbor.ErrMissing)},
		"product twice":               {good.set(5, arr{product, product.set(1, 2)}), ErrProductTwice},
		"products absent":             {good.without(5), cb(cbor.ErrMissing)},
		"unknown critical field":      {good.set(6, 1), cb(cbor.ErrUnknown)},
		"fields not in order":         {append(good[2:len(good):len(good)], good[:2]...), cb(cbor.ErrOrder)},
		"field twice":                 {append(mp{0, 1}, good...), cb(cbor.ErrOrder)},
		"a product's epoch as text":   {good.set(5, arr{product.set(2, "3")}), cb(cbor.ErrType)},
		"a note that is nested deep":  {good.set(-5, arr{arr{arr{arr{1}}}}), cb(cbor.ErrDepth)},
		"a key's name in a long form": {keys(key.set(3, arr{raw{0x78, 1, 'a'}})), cb(cbor.ErrForm)},
	}
	for name, c := range cases {
		var l KeyList
		if got := l.Parse(enc(c.m)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var l KeyList
	if got := l.Parse(append(enc(good), 0)); got != cb(cbor.ErrTrailing) {
		t.Errorf("bytes behind: %v", got)
	}
}

func TestMalformedManifests(t *testing.T) {
	good := goodManifest()
	image := func(k int, v any) mp { return good.set(6, arr{goodImage().set(k, v)}) }
	less := func(k int) mp { return good.set(6, arr{goodImage().without(k)}) }
	critical := func(k int) mp { return append(append(good[:16:16], k, 1), good[16:]...) }
	// slot and address come before the chunk size.
	placed := func(slot int, address any) mp {
		g := goodImage()
		return good.set(6, arr{append(append(g[:10:10], 5, slot, 6, address), g[10:]...)})
	}
	cases := map[string]struct {
		m    mp
		want Error
	}{
		"good":                      {good, 0},
		"no date":                   {good.without(-1), 0},
		"a date that is no number":  {good.set(-1, "yesterday"), 0},
		"another note":              {good.set(-2, arr{1, mp{1, 2}}), 0},
		"no product":                {good.without(0), cb(cbor.ErrMissing)},
		"nameless product":          {good.set(0, ""), cb(cbor.ErrValue)},
		"product of 65 bytes":       {good.set(0, strings.Repeat("p", 65)), cb(cbor.ErrLimit)},
		"product as bytes":          {good.set(0, []byte("acme/pump")), cb(cbor.ErrType)},
		"no hardware":               {good.set(1, arr{}), cb(cbor.ErrValue)},
		"nine hardwares":            {good.set(1, arr{[]byte{1}, []byte{2}, []byte{3}, []byte{4}, []byte{5}, []byte{6}, []byte{7}, []byte{8}, []byte{9}}), cb(cbor.ErrLimit)},
		"empty hardware":            {good.set(1, arr{[]byte{}}), cb(cbor.ErrValue)},
		"hardware of 33 bytes":      {good.set(1, arr{make([]byte, 33)}), cb(cbor.ErrLimit)},
		"hardware as text":          {good.set(1, arr{"esp32"}), cb(cbor.ErrType)},
		"version empty":             {good.set(2, ""), cb(cbor.ErrValue)},
		"version of 65 bytes":       {good.set(2, strings.Repeat("1", 65)), cb(cbor.ErrLimit)},
		"version not UTF-8":         {good.set(2, "\xC0\x80"), cb(cbor.ErrText)},
		"epoch of 33 bits":          {good.set(3, uint64(1<<32)), cb(cbor.ErrLimit)},
		"no epoch":                  {good.without(3), cb(cbor.ErrMissing)},
		"sequence 0":                {good.set(4, 0), cb(cbor.ErrValue)},
		"no sequence":               {good.without(4), cb(cbor.ErrMissing)},
		"security version negative": {good.set(5, -1), cb(cbor.ErrType)},
		"no image":                  {good.set(6, arr{}), cb(cbor.ErrValue)},
		"two images":                {good.set(6, arr{goodImage(), goodImage()}), cb(cbor.ErrValue)},
		"contact 2":                 {good.set(7, mp{0, 2, 1, 300}), cb(cbor.ErrLimit)},
		"no contact":                {good.set(7, mp{1, 300}), cb(cbor.ErrMissing)},
		"confirm in 9 seconds":      {good.set(7, mp{0, 1, 1, 9}), cb(cbor.ErrValue)},
		"confirm in 10 seconds":     {good.set(7, mp{0, 0, 1, 10}), 0},
		"confirm in a day":          {good.set(7, mp{0, 0, 1, 86_400}), 0},
		"confirm later":             {good.set(7, mp{0, 0, 1, 86_401}), cb(cbor.ErrLimit)},
		"no confirm":                {good.without(7), cb(cbor.ErrMissing)},
		"requires":                  {critical(8), cb(cbor.ErrUnknown)},
		"device ids":                {critical(9), cb(cbor.ErrUnknown)},
		"encryption":                {critical(10), cb(cbor.ErrUnknown)},
		"component empty":           {image(0, ""), cb(cbor.ErrValue)},
		"component of 17 bytes":     {image(0, strings.Repeat("a", 17)), cb(cbor.ErrLimit)},
		"format 0":                  {image(1, 0), cb(cbor.ErrValue)},
		"format 3":                  {image(1, 3), cb(cbor.ErrLimit)},
		"ESP without a chip":        {less(2), cb(cbor.ErrValue)},
		"raw with a chip":           {image(1, 2), cb(cbor.ErrValue)},
		"chip of 17 bits":           {image(2, 65_536), cb(cbor.ErrLimit)},
		"digest of 31 bytes":        {image(3, make([]byte, 31)), cb(cbor.ErrValue)},
		"size 0":                    {image(4, 0), cb(cbor.ErrValue)},
		"size of 33 bits":           {image(4, uint64(1<<32)), cb(cbor.ErrLimit)},
		"slot and address":          {placed(15, uint64(1<<32-1)), 0},
		"slot 16":                   {placed(16, 0), cb(cbor.ErrLimit)},
		"address of 33 bits":        {placed(0, uint64(1<<32)), cb(cbor.ErrLimit)},
		"chunk 128":                 {image(7, 128), cb(cbor.ErrValue)},
		"chunk 1,000":               {image(7, 1000), cb(cbor.ErrValue)},
		"chunk 32,768":              {image(7, 32_768), cb(cbor.ErrLimit)},
		"root of 33 bytes":          {image(8, make([]byte, 33)), cb(cbor.ErrLimit)},
		"no root":                   {less(8), cb(cbor.ErrMissing)},
		"second chunk alone":        {less(10), cb(cbor.ErrMissing)},
		"second root alone":         {less(9), cb(cbor.ErrMissing)},
		"second chunk the same":     {image(9, 1024), cb(cbor.ErrValue)},
		"unknown field of an image": {image(11, 1), cb(cbor.ErrUnknown)},
	}
	for name, c := range cases {
		var m Manifest
		if got := m.Parse(enc(c.m)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestManifestFields(t *testing.T) {
	var m Manifest
	if err := m.Parse(enc(goodManifest())); err != 0 {
		t.Fatal(err)
	}
	im := &m.Image
	if string(m.Product) != "acme/pump" || string(m.Version) != "1.2.3" || m.Epoch != 3 || m.Sequence != 7 || m.SecurityVersion != 4 ||
		!m.Contact || m.ConfirmSeconds != 300 || m.SignedAt != 1_700_000_000 || im.Format != FormatESP || im.Chip != 5 ||
		im.Size != 100_000 || im.NStreams != 2 || im.HasSlot || im.HasAddress || im.Digest[0] != 0xD1 {
		t.Errorf("%+v", m)
	}
	if !m.For([]byte{1, 2}) || !m.For([]byte("esp32c3")) || m.For([]byte("esp32")) || m.For(nil) {
		t.Error("hardware")
	}
	for _, c := range []struct{ most, chunk uint32 }{{256, 0}, {1024, 1024}, {4095, 1024}, {4096, 4096}, {16384, 4096}} {
		if s := im.Stream(c.most); (s == nil) != (c.chunk == 0) || s != nil && s.Chunk != c.chunk {
			t.Errorf("stream of at most %d: %+v", c.most, s)
		}
	}
}

func TestMalformedSheets(t *testing.T) {
	good := goodSheet()
	compressed := good.set(1, 2).without(4).without(5)
	cases := map[string]struct {
		m    mp
		want Error
	}{
		"a patch":                   {good, 0},
		"compressed":                {compressed, 0},
		"a note":                    {good.set(-1, "x"), 0},
		"kind raw":                  {compressed.set(1, 1), cb(cbor.ErrValue)},
		"kind 4":                    {good.set(1, 4), cb(cbor.ErrLimit)},
		"profile 256":               {good.set(2, 256), cb(cbor.ErrLimit)},
		"patch without base":        {good.without(4), cb(cbor.ErrMissing)},
		"patch without base size":   {good.without(5), cb(cbor.ErrMissing)},
		"base size 0":               {good.set(5, 0), cb(cbor.ErrValue)},
		"compressed with base":      {good.set(1, 2).without(5), cb(cbor.ErrValue)},
		"length 0":                  {good.set(6, 0), cb(cbor.ErrValue)},
		"chunk 300":                 {good.set(7, 300), cb(cbor.ErrValue)},
		"root of 31 bytes":          {good.set(8, make([]byte, 31)), cb(cbor.ErrValue)},
		"image root absent":         {good.without(0), cb(cbor.ErrMissing)},
		"ram absent":                {good.without(3), cb(cbor.ErrMissing)},
		"unknown critical field":    {good.set(9, 1), cb(cbor.ErrUnknown)},
		"ram above 32 bits":         {good.set(3, uint64(1<<32)), cb(cbor.ErrLimit)},
		"image root of 33 bytes":    {good.set(0, make([]byte, 33)), cb(cbor.ErrLimit)},
		"length and root exchanged": {good.set(6, make([]byte, 32)), cb(cbor.ErrType)},
	}
	for name, c := range cases {
		var s Sheet
		if got := s.Parse(enc(c.m)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestKindsDoNotPass wants no object to be read as one of another kind.
func TestKindsDoNotPass(t *testing.T) {
	var l KeyList
	var m Manifest
	var s Sheet
	list, man, sheet := enc(listOf(1, 1, 1, 1)), enc(goodManifest()), enc(goodSheet())
	if l.Parse(man) == 0 || l.Parse(sheet) == 0 || m.Parse(list) == 0 || m.Parse(sheet) == 0 || s.Parse(list) == 0 || s.Parse(man) == 0 {
		t.Error("an object was read as one of another kind")
	}
}

func TestErrorTexts(t *testing.T) {
	seen := map[string]Error{}
	for e := ErrSize; e <= ErrChunk; e++ {
		text := e.Error()
		if other, ok := seen[text]; ok || text == "" || strings.HasPrefix(text, "cbor") {
			t.Errorf("error %d has the text %q, as %d", e, text, other)
		}
		seen[text] = e
	}
	if cb(cbor.ErrOrder).CBOR() != cbor.ErrOrder || ErrChunk.CBOR() != 0 || cb(cbor.ErrOrder).Error() != cbor.ErrOrder.Error() {
		t.Error("errors of cbor are lost")
	}
}

func TestSizes(t *testing.T) {
	t.Logf("Envelope %d, KeyList %d, Manifest %d, Sheet %d, Acceptance %d, Verification %d bytes on this machine",
		unsafe.Sizeof(Envelope{}), unsafe.Sizeof(KeyList{}), unsafe.Sizeof(Manifest{}), unsafe.Sizeof(Sheet{}),
		unsafe.Sizeof(Acceptance{}), unsafe.Sizeof(Verification{}))
}

func FuzzReaders(f *testing.F) {
	f.Add(seal(KindKeys, enc(listOf(1, 1, 1, 1, 2)), 1))
	f.Add(enc(listOf(1, 1, 1, 1, 2)))
	f.Add(enc(goodManifest()))
	f.Add(enc(goodSheet()))
	f.Fuzz(func(t *testing.T, p []byte) {
		before := bytes.Clone(p)
		var e Envelope
		if e.Parse(p) == 0 && (len(e.Payload) == 0 || e.N == 0) {
			t.Fatal("an empty envelope")
		}
		var l KeyList
		if l.Parse(p) == 0 {
			n := 0
			var k Key
			var all Keys
			for l.all(&all); all.Next(&k); n++ {
				if len(k.Public) != KeySize || CheckKey(k.Public) != 0 {
					t.Fatal("a key that must not be in a list")
				}
			}
			if n != int(l.NRoots)+int(l.NKeys) || l.M == 0 || l.M > l.NRoots {
				t.Fatalf("%d keys: %+v", n, l)
			}
			store := make([]byte, MaxTrust)
			if n, err := Compact(store, &l, []byte("acme/pump")); err != 0 || n > MaxTrust {
				t.Fatal(err)
			}
		}
		var m Manifest
		if m.Parse(p) == 0 {
			if m.Image.Stream(MaxChunk) == nil || len(m.Image.Digest) != 32 || m.Sequence == 0 {
				t.Fatalf("%+v", m)
			}
		}
		var s Sheet
		s.Parse(p)
		if !bytes.Equal(p, before) {
			t.Fatal("a reader changed its input")
		}
	})
}
