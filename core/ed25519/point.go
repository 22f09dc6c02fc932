package ed25519

// point is x/z, y/z with t = xy/z (Hisil, Wong, Carter, Dawson: Twisted Edwards
// curves revisited, section 3): the formulas are complete on this curve, so that
// no pair of points is special, those of small order included.
type point struct {
	x, y, z, t element
	e, f, g, h element // of the formulas
}

// cached is a point prepared to be added.
type cached struct {
	sum, difference, product element // y+x, y-x, 2dxy/z
	z2                       element // 2z
}

// basePoints are 1, 3, 5 and 7 times the base point, z = 1: sum, difference, product.
var basePoints = [tableSize][3]element{
	{
		{0xf58c3b85, 0x2fbc93c6, 0xfb8c0e19, 0xcf932dc6, 0x643d42c2, 0x270b4898, 0x33d4ba65, 0x07cf9d3a},
		{0xd740913e, 0x9d103905, 0xd140beb3, 0xfd399f05, 0x688f8a09, 0xa5c18434, 0x98f81267, 0x44fd2f92},
		{0x877aaa68, 0xabc91205, 0xccaac49e, 0x26d9e823, 0xdd43598c, 0x5a1b7dcb, 0x9f0c65a8, 0x6f117b68},
	},
	{
		{0x4cee9730, 0xaf25b0a8, 0xe8864b8a, 0x025a8430, 0x9f016732, 0xc11b5002, 0x9a80f8f4, 0x7a164e1b},
		{0xa4fcd265, 0x56611fe8, 0xe5c1ba7d, 0x3bd353fd, 0x214bd6bd, 0x8131f31a, 0x555bda62, 0x2ab91587},
		{0x0dd0d889, 0x14ae933f, 0x1c35da62, 0x58942322, 0x8cf2db4c, 0xd170e545, 0x12b9b4c6, 0x5a2826af},
	},
	{
		{0x08a5bb33, 0xa212bc44, 0xc75eed02, 0x8d5048c3, 0x5abfec44, 0xdd1beb0c, 0x46e206eb, 0x2945ccf1},
		{0xa447d6ba, 0x7f9182c3, 0x4b2729b7, 0xd50014d1, 0xb864a087, 0xe33cf11c, 0xeb1b55f3, 0x154a7e73},
		{0x812a8285, 0xbcbbdbf1, 0xd0bdd1fc, 0x270e0807, 0x1bbda72d, 0xb41b670b, 0x6b3bb69a, 0x43aabe69},
	},
	{
		{0x944ea3bf, 0x6b1a5cd0, 0xb39dc0d2, 0x7470353a, 0x28542e49, 0x71b25282, 0x283c927e, 0x461bea69},
		{0xaa3221b1, 0xba6f2c9a, 0x3bba23a7, 0x6ca02153, 0x92192c3a, 0x9dea764f, 0x2e5317e0, 0x1d6edd5d},
		{0x01b8b3a2, 0xf1836dc8, 0x053ea49a, 0xb3035f47, 0x5877adf3, 0x529c41ba, 0x6a0f90a7, 0x7a9fbb1c},
	},
}

// neutral makes p the neutral point.
func (p *point) neutral() {
	*p = point{}
	p.y[0], p.z[0] = 1, 1
}

// finish: t only where an addition comes next, which alone reads it.
func (p *point) finish(t bool) {
	mul(&p.x, &p.e, &p.f)
	mul(&p.y, &p.g, &p.h)
	mul(&p.z, &p.f, &p.g)
	if t {
		mul(&p.t, &p.e, &p.h)
	}
}

// double makes p 2p. All of e, f, g, h are the negatives of those in the paper,
// which saves a negation: only products of two of them count.
func (p *point) double(t bool) {
	add(&p.e, &p.x, &p.y)
	square(&p.e, &p.e)
	square(&p.f, &p.x)
	square(&p.g, &p.y)
	add(&p.h, &p.f, &p.g)
	sub(&p.e, &p.h, &p.e)
	sub(&p.g, &p.f, &p.g)
	square(&p.f, &p.z)
	add(&p.f, &p.f, &p.f)
	add(&p.f, &p.f, &p.g)
	p.finish(t)
}

// add adds q, or subtracts it.
func (p *point) add(q *cached, negative, t bool) {
	a, b, f, g := &q.difference, &q.sum, &p.f, &p.g
	if negative {
		a, b, f, g = b, a, g, f
	}
	add(&p.h, &p.y, &p.x)
	sub(&p.x, &p.y, &p.x)
	mul(&p.h, &p.h, b)
	mul(&p.x, &p.x, a)
	sub(&p.e, &p.h, &p.x)
	add(&p.h, &p.h, &p.x)
	mul(&p.x, &p.t, &q.product)
	mul(&p.y, &p.z, &q.z2)
	sub(f, &p.y, &p.x)
	add(g, &p.y, &p.x)
	p.finish(t)
}

// of prepares p to be added.
func (q *cached) of(p *point) {
	add(&q.sum, &p.y, &p.x)
	sub(&q.difference, &p.y, &p.x)
	add(&q.z2, &p.z, &p.z)
	q.product.constant(curveD)
	mul(&q.product, &q.product, &p.t)
	add(&q.product, &q.product, &q.product)
}

// base puts entry i of basePoints into q.
func (q *cached) base(i int) {
	for j := range q.sum {
		q.sum[j], q.difference[j], q.product[j] = basePoints[i][0][j], basePoints[i][1][j], basePoints[i][2][j]
	}
	q.z2 = element{2}
}
