# The agent's code for x86-64; agent.h says what it is and lays out what it reads. No vector registers, and no stack
# until the very end: rsp stays the program's own, because a signal can find the thread here when its tracer is dead.
# rbx: header, r12: next call, r13: end of the table, r14: its start.

        .section .rodata
        .globl virt_agent_begin, virt_agent_end, virt_agent_home, virt_agent_park
        .hidden virt_agent_begin, virt_agent_end, virt_agent_home, virt_agent_park
        .p2align 4
virt_agent_begin:
.Lnext:
        cmp     %r13, %r12
        jae     .Lmark
        movzbl  4(%r12), %ecx           # substitute
        mov     8(%r12), %rdi
        mov     16(%r12), %rsi
        mov     24(%r12), %rdx
        mov     32(%r12), %r10
        mov     40(%r12), %r8
        mov     48(%r12), %r9
        test    %ecx, %ecx
        jz      .Lcall
        movzwl  6(%r12), %eax           # source
        shl     $6, %rax
        mov     56(%r14,%rax), %rax
        cmp     $1, %ecx
        cmove   %rax, %rdi
        cmp     $2, %ecx
        cmove   %rax, %rsi
        cmp     $3, %ecx
        cmove   %rax, %rdx
        cmp     $4, %ecx
        cmove   %rax, %r10
        cmp     $5, %ecx
        cmove   %rax, %r8
        cmp     $6, %ecx
        cmove   %rax, %r9
.Lcall:
        mov     (%r12), %eax
        syscall
        mov     %rax, %rbp
        testb   $1, 5(%r12)
        jnz     .Lstored
        mov     %rax, 56(%r12)
.Lstored:
        testb   $2, 5(%r12)
        lea     64(%r12), %r12
        jz      .Lnext
        cmp     $-4095, %rax
        jb      .Lnext

.Lmark:                                 # tgkill(tgid, tid, mark)
        mov     (%rbx), %rdi
        mov     8(%rbx), %rsi
        mov     16(%rbx), %rdx
        mov     $234, %eax
        syscall

virt_agent_home:                        # rt_sigprocmask(SIG_SETMASK, mask, NULL, 8)
        mov     $2, %edi
        lea     24(%rbx), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        mov     $14, %eax
        syscall                         # what waited is handled here, on the program's own stack
        mov     40(%rbx), %r15
        mov     48(%rbx), %r14
        mov     56(%rbx), %r13
        mov     64(%rbx), %r12
        mov     72(%rbx), %rbp
        mov     80(%rbx), %r11
        mov     88(%rbx), %r10
        mov     96(%rbx), %r9
        mov     104(%rbx), %r8
        mov     112(%rbx), %rax
        mov     120(%rbx), %rcx
        mov     128(%rbx), %rdx
        mov     136(%rbx), %rsi
        mov     144(%rbx), %rdi
        lea     152(%rbx), %rsp         # from here to the end a signal would find no stack
        pop     %rbx
        iretq

virt_agent_park:                        # futex(commit, FUTEX_WAIT, 0, NULL) until *commit != 0
        mov     32(%rbx), %rdi
        cmpl    $0, (%rdi)
        jne     virt_agent_home
        xor     %esi, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        mov     $202, %eax
        syscall
        jmp     virt_agent_park
virt_agent_end:

        .section .note.GNU-stack,"",@progbits
