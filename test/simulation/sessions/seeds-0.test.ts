import { playConversations } from './seeds.ts'

playConversations(0)
