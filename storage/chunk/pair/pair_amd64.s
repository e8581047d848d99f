//go:build !purego

#include "textflag.h"

// Two messages at once with the SHA extensions. One message leaves the unit idle for half of its time, because each
// SHA256RNDS2 waits for the one before it; a second message's fill the gaps. The rounds and the order of the state's
// words are those of Intel's paper on the extensions (Gulley and others, 2013), as in Go's crypto/sha256.
//
// Of each lane X is the register of its state's words A, B, E, F or C, D, G, H, and four hold its message's next words.
// X0 is the instruction's own operand, X15 the mask that turns bytes around.

// Four rounds: m holds their words, k is where their constants are.
#define ROUNDS(m, k, abef, cdgh) \
	MOVO        m, X0         \
	PADDD       k(AX), X0     \
	SHA256RNDS2 X0, abef, cdgh \
	PSHUFD      $0x0e, X0, X0 \
	SHA256RNDS2 X0, cdgh, abef

// The words that are due in four rounds' time: next is finished from m and the one before it.
#define FINISH(m, before, next, scratch) \
	MOVO       m, scratch          \
	PALIGNR    $4, before, scratch \
	PADDD      scratch, next       \
	SHA256MSG2 m, next

#define LOAD(at, from, m) \
	MOVOU  at(from), m \
	PSHUFB X15, m

#define A(m, k) ROUNDS(m, k, X1, X2)
#define B(m, k) ROUNDS(m, k, X8, X9)

// Four rounds of both lanes, and the words that follow from theirs.
#define BOTH(a, abefore, anext, b, bbefore, bnext, k) \
	A(a, k)                       \
	FINISH(a, abefore, anext, X7) \
	SHA256MSG1 a, abefore         \
	B(b, k)                       \
	FINISH(b, bbefore, bnext, X14) \
	SHA256MSG1 b, bbefore

// Words as they lie in memory, A to D and E to H, become A, B, E, F and C, D, G, H.
#define ENTER(abef, cdgh, scratch) \
	PSHUFD  $0xb1, abef, abef   \
	PSHUFD  $0x1b, cdgh, cdgh   \
	MOVO    abef, scratch       \
	PALIGNR $8, cdgh, abef      \
	PBLENDW $0xf0, scratch, cdgh

#define LEAVE(abef, cdgh, scratch) \
	PSHUFD  $0x1b, abef, abef \
	PSHUFD  $0xb1, cdgh, cdgh \
	MOVO    abef, scratch     \
	PBLENDW $0xf0, cdgh, abef \
	PALIGNR $8, scratch, cdgh

// func blocks(x, y *[8]uint32, p, q *byte, n int)
TEXT ·blocks(SB), NOSPLIT, $64-40
	MOVQ  x+0(FP), DI
	MOVQ  y+8(FP), R8
	MOVQ  p+16(FP), SI
	MOVQ  q+24(FP), R9
	MOVQ  n+32(FP), DX
	TESTQ DX, DX
	JLE   done

	MOVOU (DI), X1
	MOVOU 16(DI), X2
	ENTER(X1, X2, X7)
	MOVOU (R8), X8
	MOVOU 16(R8), X9
	ENTER(X8, X9, X14)
	MOVOU flip<>+0(SB), X15
	LEAQ  constants<>+0(SB), AX

loop:
	MOVOU X1, 0(SP)
	MOVOU X2, 16(SP)
	MOVOU X8, 32(SP)
	MOVOU X9, 48(SP)

	LOAD(0, SI, X3)
	LOAD(0, R9, X10)
	A(X3, 0)
	B(X10, 0)

	LOAD(16, SI, X4)
	LOAD(16, R9, X11)
	A(X4, 16)
	B(X11, 16)
	SHA256MSG1 X4, X3
	SHA256MSG1 X11, X10

	LOAD(32, SI, X5)
	LOAD(32, R9, X12)
	A(X5, 32)
	B(X12, 32)
	SHA256MSG1 X5, X4
	SHA256MSG1 X12, X11

	LOAD(48, SI, X6)
	LOAD(48, R9, X13)
	BOTH(X6, X5, X3, X13, X12, X10, 48)
	BOTH(X3, X6, X4, X10, X13, X11, 64)
	BOTH(X4, X3, X5, X11, X10, X12, 80)
	BOTH(X5, X4, X6, X12, X11, X13, 96)
	BOTH(X6, X5, X3, X13, X12, X10, 112)
	BOTH(X3, X6, X4, X10, X13, X11, 128)
	BOTH(X4, X3, X5, X11, X10, X12, 144)
	BOTH(X5, X4, X6, X12, X11, X13, 160)
	BOTH(X6, X5, X3, X13, X12, X10, 176)
	BOTH(X3, X6, X4, X10, X13, X11, 192)

	A(X4, 208)
	FINISH(X4, X3, X5, X7)
	B(X11, 208)
	FINISH(X11, X10, X12, X14)
	A(X5, 224)
	FINISH(X5, X4, X6, X7)
	B(X12, 224)
	FINISH(X12, X11, X13, X14)
	A(X6, 240)
	B(X13, 240)

	MOVOU 0(SP), X7
	PADDD X7, X1
	MOVOU 16(SP), X7
	PADDD X7, X2
	MOVOU 32(SP), X14
	PADDD X14, X8
	MOVOU 48(SP), X14
	PADDD X14, X9

	ADDQ $64, SI
	ADDQ $64, R9
	DECQ DX
	JNE  loop

	LEAVE(X1, X2, X7)
	MOVOU X1, (DI)
	MOVOU X2, 16(DI)
	LEAVE(X8, X9, X14)
	MOVOU X8, (R8)
	MOVOU X9, 16(R8)

done:
	RET

// func cpuid(leaf, sub uint32) (eax, ebx, ecx uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-20
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, eax+8(FP)
	MOVL BX, ebx+12(FP)
	MOVL CX, ecx+16(FP)
	RET

DATA flip<>+0(SB)/8, $0x0405060700010203
DATA flip<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL flip<>(SB), RODATA|NOPTR, $16

DATA constants<>+0(SB)/8, $0x71374491428a2f98
DATA constants<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA constants<>+16(SB)/8, $0x59f111f13956c25b
DATA constants<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA constants<>+32(SB)/8, $0x12835b01d807aa98
DATA constants<>+40(SB)/8, $0x550c7dc3243185be
DATA constants<>+48(SB)/8, $0x80deb1fe72be5d74
DATA constants<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA constants<>+64(SB)/8, $0xefbe4786e49b69c1
DATA constants<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA constants<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA constants<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA constants<>+96(SB)/8, $0xa831c66d983e5152
DATA constants<>+104(SB)/8, $0xbf597fc7b00327c8
DATA constants<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA constants<>+120(SB)/8, $0x1429296706ca6351
DATA constants<>+128(SB)/8, $0x2e1b213827b70a85
DATA constants<>+136(SB)/8, $0x53380d134d2c6dfc
DATA constants<>+144(SB)/8, $0x766a0abb650a7354
DATA constants<>+152(SB)/8, $0x92722c8581c2c92e
DATA constants<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA constants<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA constants<>+176(SB)/8, $0xd6990624d192e819
DATA constants<>+184(SB)/8, $0x106aa070f40e3585
DATA constants<>+192(SB)/8, $0x1e376c0819a4c116
DATA constants<>+200(SB)/8, $0x34b0bcb52748774c
DATA constants<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA constants<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA constants<>+224(SB)/8, $0x78a5636f748f82ee
DATA constants<>+232(SB)/8, $0x8cc7020884c87814
DATA constants<>+240(SB)/8, $0xa4506ceb90befffa
DATA constants<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL constants<>(SB), RODATA|NOPTR, $256
