// What compiled code calls for copies, clears and 32-bit divisions (ARM's run-time ABI,
// RTABI32, 4.3), small: 152 bytes where picolibc and libgcc have 1,180, because they
// unroll their loops. Words are copied and set where both ends can be aligned. Linked
// into the boot stage and the images, before the libraries are asked.
.syntax unified
.cpu cortex-m0
.thumb

.macro entry name
.global \name
.type \name, %function
.thumb_func
\name:
.endm

// memmove(r0 to, r1 from, r2 n) leaves to in r0; memcpy is the same.
.section .text.memmove, "ax", %progbits
entry memmove
entry memcpy
entry __aeabi_memmove
entry __aeabi_memmove4
entry __aeabi_memmove8
entry __aeabi_memcpy
entry __aeabi_memcpy4
entry __aeabi_memcpy8
    subs r3, r0, r1
    cmp r3, r2
    blo 6f                  // to lies within from's bytes: from the end
    mov ip, r0
    lsls r3, r3, #30
    bne 4f                  // never aligned both at once
1:  lsls r3, r0, #30
    beq 2f
    subs r2, #1
    blo 5f
    ldrb r3, [r1]
    strb r3, [r0]
    adds r1, #1
    adds r0, #1
    b 1b
2:  subs r2, #4
    blo 3f
    ldmia r1!, {r3}
    stmia r0!, {r3}
    b 2b
3:  adds r2, #4
4:  subs r2, #1
    blo 5f
    ldrb r3, [r1]
    strb r3, [r0]
    adds r1, #1
    adds r0, #1
    b 4b
5:  mov r0, ip
    bx lr
6:  subs r2, #1             // n is not 0 here
    ldrb r3, [r1, r2]
    strb r3, [r0, r2]
    bne 6b
    bx lr
.size memmove, . - memmove

// memset(r0 to, r1 byte, r2 n) leaves to in r0; __aeabi_memset has byte and n the other
// way round.
.section .text.memset, "ax", %progbits
entry memset
    mov r3, r1
    mov r1, r2
    mov r2, r3
    b 1f
entry __aeabi_memclr
entry __aeabi_memclr4
entry __aeabi_memclr8
entry bzero
    movs r2, #0
entry __aeabi_memset
entry __aeabi_memset4
entry __aeabi_memset8
1:  mov ip, r0
    uxtb r2, r2
    lsls r3, r2, #8
    orrs r2, r3
    lsls r3, r2, #16
    orrs r2, r3
2:  lsls r3, r0, #30
    beq 3f
    subs r1, #1
    blo 5f
    strb r2, [r0]
    adds r0, #1
    b 2b
3:  subs r1, #4
    blo 4f
    stmia r0!, {r2}
    b 3b
4:  adds r1, #4
    b 7f
6:  strb r2, [r0, r1]
7:  subs r1, #1
    bhs 6b
5:  mov r0, ip
    bx lr
.size memset, . - memset

// __aeabi_uidivmod(r0 n, r1 d) leaves n / d in r0 and n % d in r1, a bit a turn. What
// divides by 0 was stopped before.
.section .text.__aeabi_uidivmod, "ax", %progbits
entry __aeabi_uidivmod
entry __aeabi_uidiv
entry __udivsi3
    movs r2, #0             // what is left
    movs r3, #32
1:  adds r0, r0, r0
    adcs r2, r2             // at most as many bits as turns: none is lost
    cmp r2, r1
    blo 2f
    subs r2, r2, r1
    adds r0, #1
2:  subs r3, #1
    bne 1b
    mov r1, r2
    bx lr
.size __aeabi_uidivmod, . - __aeabi_uidivmod
